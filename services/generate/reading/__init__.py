"""Reading texts: questions, passages, sentences, citations, and how well a sentence answers."""
