"""Verified answers that are given again."""
