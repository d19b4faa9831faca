"""Whether a draft may be shown: what it says against its passages, its form, its judges."""
