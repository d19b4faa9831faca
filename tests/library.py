"""A corpus whose documents have titles, addresses and metadata, for tests of filters and shapes."""

from typing import Any

import httpx

LIBRARY = "library-of-surfaces"  # long enough for every client: one of them wants ten characters
DESCRIPTION = "Notes on the sky,\n   on bread and on games"
DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "sky/moon.md",
        "title": "The Moon",
        "url": "https://library.example/moon",
        "text": "The Moon is 384,400 kilometres away from Earth.",
        "metadata": {"year": 2021, "topic": "sky", "tags": ["night", "orbit"], "day": "2021-03-01"},
    },
    {
        "id": "sky/tides.md",
        "title": "Tides",
        "url": "s3://library/tides.md",
        "text": "Tides are raised by the pull of the Moon and of the Sun.",
        "metadata": {"year": 2023, "topic": "sky", "tags": ["sea"], "day": "2023-05-01"},
    },
    {
        "id": "bread",
        "text": "A sourdough starter is flour and water, fed daily, on Earth and on the Moon.",
        "metadata": {"year": 2024, "topic": "kitchen"},
    },
    {
        "id": "chess ♔ #1?",
        "title": "Chess",
        "text": "In castling the king moves two squares towards a rook.",
    },
]
QUERY = "How far away is the Moon?"
IDS = [document["id"] for document in DOCUMENTS]


def fill_library(url: str) -> None:
    """Put the corpus LIBRARY with DOCUMENTS onto a running desk, unless it is there."""
    settings = {"description": DESCRIPTION}
    httpx.put(f"{url}/corpora/{LIBRARY}", json=settings, timeout=60).raise_for_status()
    body = {"documents": DOCUMENTS}
    path = f"{url}/corpora/{LIBRARY}/documents"
    httpx.post(path, json=body, timeout=60).raise_for_status()
