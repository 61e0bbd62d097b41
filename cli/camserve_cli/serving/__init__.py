"""A TorchServe on this machine: configured, started, asked, authorized to and stopped."""
