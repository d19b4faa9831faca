"""The text in a file's bytes."""

import codecs
import re

from charset_normalizer import from_bytes

from shared.errors import ApiError

# The longer signs first: that of UTF-32 begins with that of UTF-16.
_SIGNS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What a page says of itself, in its first bytes.
_DECLARED = re.compile(
    rb"""<(?:meta\b[^>]*?\bcharset|\?xml\b[^>]*?\bencoding)\s*=\s*["']?\s*([\w:.-]+)""",
    re.IGNORECASE,
)
_DECLARED_WITHIN = 1024
_SAMPLE = 65_536  # bytes that a guess is made from
# Of the HTML standard: these labels mean the encoding that contains them.
_MEANT = {"iso-8859-1": "cp1252", "latin1": "cp1252", "latin-1": "cp1252", "ascii": "cp1252"}


def decode(data: bytes, *, param: str, declared: str | None = None) -> str:
    """The text, by its byte order mark, by what is declared, as UTF-8, or else as the encoding that
    charset-normalizer finds its words to be in.

    Raises ApiError: 415 `unsupported_format` for bytes that are no text in any of these, 422
    `broken_text` for a text that breaks its byte order mark's promise.
    """
    for sign, encoding in _SIGNS:
        if data.startswith(sign):
            try:
                return data[len(sign) :].decode(encoding)
            except UnicodeDecodeError as error:
                raise ApiError(
                    422,
                    "broken_text",
                    f"{param} says it is {encoding.upper()} and is not, at byte "
                    f"{error.start + len(sign)}: send valid text",
                    param=param,
                ) from None
    if (told := _DECLARED.search(data[:_DECLARED_WITHIN])) and declared is None:
        declared = told[1].decode("ascii")
    for name in ("utf-8", declared or ""):
        if (text := _decoded(data, name)) is not None:
            return text
    if b"\x00" not in data and (best := from_bytes(data[:_SAMPLE]).best()):
        if (text := _decoded(data, best.encoding)) is not None:
            return text
        return data.decode(best.encoding, "replace")
    raise ApiError(
        415,
        "unsupported_format",
        f"{param} is a binary file, or text in an encoding that can't be told: send UTF-8",
        param=param,
    )


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        name = codecs.lookup(encoding).name
        # A declared UTF-7, or a codec that makes no text, is never meant.
        if not name.startswith(("utf", "cp", "iso", "koi", "gb", "big5", "euc", "shift", "mac")):
            name = _MEANT.get(name, "")
        return data.decode(_MEANT.get(name, name)) if name and name != "utf-7" else None
    except (LookupError, UnicodeError, ValueError):
        return None
