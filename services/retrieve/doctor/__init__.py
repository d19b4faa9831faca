"""The doctor: what is wrong in a data folder that nobody uses, and what follows from it anew."""
