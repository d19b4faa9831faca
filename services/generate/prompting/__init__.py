"""What a language model is given to read, and what of its draft may be seen."""
