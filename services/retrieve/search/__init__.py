"""The way of a question: candidates, fusion, curation, packing, signals; one file a stage."""
