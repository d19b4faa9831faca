"""The database of a service, beside whatever else it keeps: SQLite or PostgreSQL."""
