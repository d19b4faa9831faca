"""Images in a message: data URLs alone, of a few formats, checked and never decoded as pictures."""

import binascii
import hashlib
import re
from collections.abc import Iterator

from services.generate.prompting.images import Detail, Image
from services.generate.protocol.base import Foreign, bad

MOST_IMAGES = 16  # of a request
MOST_IMAGE_BYTES = 10 * 1024 * 1024
MOST_IMAGES_BYTES = 20 * 1024 * 1024  # together: as base64 they fit the default limit of a body
_BEGINNING = re.compile(r"data:(image/[a-z0-9.+-]{1,64});base64,", re.IGNORECASE)
# How the files begin: https://mimesniff.spec.whatwg.org/#matching-an-image-type-pattern
_MAGIC = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF.{4}WEBPVP", re.DOTALL),
    "image/gif": re.compile(rb"GIF8[79]a"),
}
# A pattern holds up all other threads while it looks: no beginning is longer than this.
_BEGINNING_CHARACTERS = 200
_ADDRESS = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_MAGIC_CHARACTERS = 32  # of base64, which hold the longest of them
# Decoding holds up all other threads: some 3 ms for this many characters. A multiple of four.
_PIECE = 256 * 1024


class ImageUrl(Foreign):
    """An image as a data URL. detail: how closely a model should look, passed on as it came."""

    url: str
    detail: Detail | None = None


def read_image(sent: ImageUrl, where: str) -> Image:
    """The image of a part, its base64 checked from end to end; takes some 15 ms for a megabyte.

    where: the field, for errors. Raises ApiError 400 for what is no data URL of an image that is
    taken, for one that is too large, and for bytes that are not of the type that they claim.
    """
    url = sent.url
    if _ADDRESS.match(url, 0, _BEGINNING_CHARACTERS):
        raise bad(
            where,
            "addresses are not fetched, neither by this service nor by the model server behind it: "
            "send the image itself, as data:image/png;base64,…",
        )
    beginning = _BEGINNING.match(url)
    if beginning is None:
        raise bad(where, "must be a data URL in base64, such as data:image/png;base64,…")
    media_type = beginning[1].lower()
    if media_type not in _MAGIC:
        raise bad(where, f"must be one of {', '.join(_MAGIC)}; it says to be another type")
    start = beginning.end()
    size = base64_size(url)
    if size <= 0:
        raise bad(where, "the image is empty")
    if size > MOST_IMAGE_BYTES:
        raise bad(where, f"the image has {size:,} bytes, {MOST_IMAGE_BYTES:,} are the most")
    try:
        first = binascii.a2b_base64(url[start : start + _MAGIC_CHARACTERS], strict_mode=True)
        if not _MAGIC[media_type].match(first):
            raise bad(where, f"its first bytes are not those of {media_type}")
        digest = hashlib.sha256()
        for piece in _decoded(url, start):
            digest.update(piece)
    except ValueError:  # binascii.Error is one, and what is no ASCII raises another
        raise bad(where, "is not valid base64: A-Z, a-z, 0-9, +, / and padding, no space") from None
    return Image(
        sha256=digest.hexdigest(), media_type=media_type, size=size, detail=sent.detail, url=url
    )


def base64_size(url: str) -> int:
    """Bytes that the base64 of a data URL stands for, by its length alone."""
    start = url.find(",", 0, _BEGINNING_CHARACTERS) + 1
    return (len(url) - start) // 4 * 3 - url[-2:].count("=")


def _decoded(url: str, start: int) -> Iterator[bytes]:
    """The bytes, piece by piece. Raises ValueError where they aren't base64, or don't end there."""
    if (len(url) - start) % 4:
        raise ValueError("the length is no multiple of four")
    for place in range(start, len(url), _PIECE):
        piece = url[place : place + _PIECE]
        if piece.endswith("=") and place + _PIECE < len(url):
            raise ValueError("padding before the end")
        yield binascii.a2b_base64(piece, strict_mode=True)
