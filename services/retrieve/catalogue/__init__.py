"""The catalogue: the database of what is not in a corpus itself, SQLite or PostgreSQL."""
