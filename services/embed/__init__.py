"""The librarian: text in, vectors out."""
