"""What makes the generations of a server."""
