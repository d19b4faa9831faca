"""What can be shown afterwards of every answer: the audit trail, and why answers were escalated."""
