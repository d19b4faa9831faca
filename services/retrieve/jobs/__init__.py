"""Jobs: what takes long is written down first, answered with an id, and done behind."""
