"""The sub-commands, a module each; ``ready`` is in ``serving``, with what else asks a server."""
