"""The model store: models are files with a known origin and hash, never Python dependencies."""
