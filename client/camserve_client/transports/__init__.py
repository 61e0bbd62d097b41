"""The clients, one module for each transport: HTTP and gRPC.

A transport sends one attempt and maps its failures to the package's errors. Options, tokens,
retries and replies are the same for all, in ``camserve_client._base``.
"""
