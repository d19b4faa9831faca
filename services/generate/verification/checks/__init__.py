"""The ladder of checks: what may be wrong with a draft, each a pure function.

Every check takes what was said and what it is held against, as values of `compared`, and returns
the failures it found, each with its evidence: an empty list is its "in order". `verify` runs them.
"""
