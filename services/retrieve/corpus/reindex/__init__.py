"""The next generation of a corpus: built beside the live one, caught up, proved, then swapped."""
