"""Images of a chat, as far as prompts and records have to do with them. Pure.

Their bytes go to a model server as they came. Nothing here decodes them, and no record, key or log
has more of them than what `Image` tells of itself.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

# What an image counts for where nobody has counted its tokens and no policy says otherwise.
# Servers count by an image's size, each in its own way: GPT-4o comes to 1,445 at most (85, and 170
# for each of up to 8 tiles), Claude to about 1,600.
IMAGE_TOKENS = 1600
# More than any server known counts for one: GPT-4o mini comes to 48,169 (2,833 and 5,667 a tile).
MOST_IMAGE_TOKENS = 50_000

Detail = Literal["auto", "low", "high"]


class Image(BaseModel):
    """An image of a user's message. sha256, size: of its bytes. detail: as its client wishes it
    seen, None where it does not say. url: the data URL that it came in, which is never dumped or
    shown with the rest."""

    model_config = ConfigDict(frozen=True)

    sha256: str
    media_type: str
    size: int
    detail: Detail | None = None
    url: str = Field(exclude=True, repr=False)


def told(value: object) -> dict[str, Any]:
    """What JSON has of an image, for a dump of what holds some. Raises TypeError for all else."""
    if isinstance(value, Image):
        return value.model_dump()
    raise TypeError(f"{type(value).__name__} is no image")


def with_images(turn: Mapping[str, Any]) -> dict[str, Any]:
    """A turn whose images stand beside its text, as a server takes it: the text, then they."""
    sent = dict(turn)
    images: tuple[Image, ...] = sent.pop("images", ())
    if images:
        # Some servers refuse a part without text: an earlier turn may be an image alone.
        words = [{"type": "text", "text": turn["content"]}] if turn["content"] else []
        sent["content"] = [*words, *map(_part, images)]
    return sent


def _part(image: Image) -> dict[str, Any]:
    detail = {} if image.detail is None else {"detail": image.detail}
    return {"type": "image_url", "image_url": {"url": image.url, **detail}}
