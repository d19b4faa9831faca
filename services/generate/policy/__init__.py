"""The routing policy: one YAML file, its schema, its lint, and how it is read anew while in use."""
