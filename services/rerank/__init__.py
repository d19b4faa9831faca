"""The curator: a query and candidates in, relevance scores out."""
