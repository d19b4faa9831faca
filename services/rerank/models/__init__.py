"""What can judge the relevance of a text."""
