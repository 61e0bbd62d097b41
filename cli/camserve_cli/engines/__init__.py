"""What answers the photos of a command: an archive that runs here, or a server."""
