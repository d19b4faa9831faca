"""Which tier answers a question, and why; all of it pure."""
