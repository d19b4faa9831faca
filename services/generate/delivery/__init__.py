"""Bringing an answer to its caller: whole or as events, on record."""
