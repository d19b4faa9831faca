"""The other services, as a writer needs them."""
