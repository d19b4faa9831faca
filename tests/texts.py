"""Documents as a client sends them, each version of a text of its own."""

import json
from dataclasses import dataclass, field
from typing import Any

from services.retrieve.stores.base import Metadata


@dataclass(frozen=True)
class Sent:
    """A document as it was sent."""

    text: str
    title: str | None = None
    url: str | None = None
    metadata: Metadata = field(default_factory=dict)
    readers: tuple[str, ...] | None = None

    @classmethod
    def of(cls, name: str, version: int) -> "Sent":
        """As long as the version says: of one chunk, or several."""
        sentences = [
            f"{name} of version {version} says in part {part} what granite and lanterns are."
            for part in range(1 + version % 4 * 12)
        ]
        return cls(" ".join(sentences), metadata={"version": version})

    def body(self, name: str) -> dict[str, Any]:
        """An element of a request's `documents`."""
        return {"id": name, "text": self.text, "metadata": dict(self.metadata)}

    def line(self, name: str) -> str:
        """A line of NDJSON."""
        return json.dumps(self.body(name))
