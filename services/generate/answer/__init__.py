"""The way of an answer: sources, evidence, prompt, draft, verification, escalation, the wire."""
