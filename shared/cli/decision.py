"""A routing decision in a few words."""

from typing import Any


def writer(made: dict[str, Any]) -> str:
    """Tier, model and rule of a decision in short, or what the caller is told instead."""
    if made["refused"]:
        return f"refused: {made['refused']}"
    if made["tier"] is None:
        return f"nobody ({made['rule']})"
    return f"{made['tier']}: {made['model']} ({made['rule']})"
