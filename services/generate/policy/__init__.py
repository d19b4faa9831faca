"""The routing policy: one YAML file, its schema, its lint, and what follows from it."""
