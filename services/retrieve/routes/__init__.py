"""The desk's own HTTP API: routes that translate, and nothing else."""
