"""Where documents are cut: how tokens are counted, and the ways of finding borders."""
