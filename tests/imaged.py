"""What the tests of images share: images, questions with them, and a policy with a tier that sees.

The images are never decoded, so that it is their first bytes alone that make them.
"""

import base64
import json
from pathlib import Path
from typing import Any

from tests.calling import served
from tests.writers import WHEN

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
GIF = b"GIF89a"
WEBP = b"RIFF\x1a\x00\x00\x00WEBPVP8L"


def png(rest: bytes = b"one") -> bytes:
    """The bytes of an image of its own."""
    return PNG + rest


def data_url(image: bytes, media_type: str = "image/png") -> str:
    """An image as a chat has it."""
    return f"data:{media_type};base64,{base64.b64encode(image).decode()}"


def part(url: str, **more: Any) -> dict[str, Any]:
    """An image as a part of a message's content."""
    return {"type": "image_url", "image_url": {"url": url, **more}}


def showing(*images: bytes, question: str = WHEN) -> dict[str, Any]:
    """A user's message that asks about images."""
    text = {"type": "text", "text": question}
    return {"role": "user", "content": [text, *(part(data_url(one)) for one in images)]}


def seeing(folder: Path, text: str, eyes: str, **more: Any) -> Path:
    """A policy of two tiers, `tier0` for texts, which all questions are for, and `tier1`, whose
    model `m1` sees. text, eyes: addresses of their servers. more: fields of `m1`."""
    path = served(folder, text, eyes)
    policy = json.loads(path.read_text())
    policy["models"]["m1"] |= {"capabilities": ["vision"], **more}
    path.write_text(json.dumps(policy))
    return path


def images_of(message: dict[str, Any]) -> list[str]:
    """The data URLs in a message that a model server was sent."""
    content = message["content"]
    return [
        one["image_url"]["url"]
        for one in (content if isinstance(content, list) else [])
        if one["type"] == "image_url"
    ]
