"""What several of the tests share: networks, photos, servers, clients, and requests."""
