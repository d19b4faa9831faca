"""From a decision to an answer: drafting, verification, escalation, and what came of it."""
