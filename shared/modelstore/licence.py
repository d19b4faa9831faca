"""The licence that a model states for itself."""

from pathlib import Path


def stated_licence(folder: Path) -> str:
    """The licence in the front matter of the model's README.md; ``unknown`` where none is."""
    from huggingface_hub import ModelCard  # slow to import, and only this command needs it

    card = folder / "README.md"
    if not card.is_file():
        return "unknown"
    try:
        data = ModelCard.load(card, ignore_metadata_errors=True).data
    except (ValueError, UnicodeDecodeError):
        return "unknown"
    return str(data.to_dict().get("license") or "unknown")
