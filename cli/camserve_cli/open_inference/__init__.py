"""The Open Inference front: KServe's and Triton's protocols over HTTP and gRPC, before any host.

A small process of its own that ``camserve serve start --open-inference`` starts beside TorchServe,
and that ``python -m camserve_cli.open_inference`` starts by itself. ``http_service`` and
``grpc_service`` speak the protocols, ``service`` answers what both ask for, ``admission`` limits
requests and memory, ``messages`` and ``tensors`` translate gRPC to the HTTP body that the handler
reads. They know a host by the interface in ``host`` alone; ``torchserve`` is the only one so far,
and ``process`` puts everything together.
"""
