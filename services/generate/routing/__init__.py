"""Which tier answers a question, and why. Deciding is pure; `in_force` and `learned` read files."""
