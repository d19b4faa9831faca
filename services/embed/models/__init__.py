"""What can run an embedding model."""
