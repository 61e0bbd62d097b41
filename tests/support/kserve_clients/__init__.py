"""KServe's and Triton's own clients, each in an environment of its own, and how tests call them.

``environments`` builds the environments and starts ``triton_agent`` or ``kserve_agent`` in them: a
process that makes the calls it is told to make and tells what came of them. ``calls`` says what a
call is.
"""
