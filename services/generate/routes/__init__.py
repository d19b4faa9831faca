"""The routes of generate, one file for each surface."""
