"""What writes answers: one `Endpoint` protocol and its implementations."""
