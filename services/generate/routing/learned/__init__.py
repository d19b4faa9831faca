"""A router that is learned from recorded outcomes; see docs/concepts/learned-router.md."""
