"""Reading texts: passages, sentences, words, citations, and how well a sentence answers."""
