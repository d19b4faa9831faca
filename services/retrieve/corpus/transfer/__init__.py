"""Corpora as files: exports for others to read, backups to put in their place again."""
