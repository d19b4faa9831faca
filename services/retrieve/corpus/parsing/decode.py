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
# Of the HTML standard: these labels (by the names of Python's codecs) mean the encoding that
# contains them.
_MEANT = {
    **dict.fromkeys(("ascii", "iso8859-1"), "cp1252"),
    **dict.fromkeys(("gb2312", "gbk"), "gb18030"),
    "iso8859-9": "cp1254",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
}
# The windows encodings of the standard give every byte of this range a character, Python's don't: a
# stray one would be no reason to take a text for another than is declared.
_CONTROLS = range(0x80, 0xA0)
_AS_CONTROLS = "refdesk.controls"
# So many characters beyond ASCII for each broken one are UTF-8 with a few bytes damaged: what is
# in another encoding has more broken than whole ones.
_SOUND_FOR_EACH_BROKEN = 4


def decode(data: bytes, *, param: str, declared: str | None = None) -> str:
    """The text, by its byte order mark, as UTF-8, by what is declared, or else as the encoding that
    charset-normalizer finds its words to be in. Where UTF-8 is damaged in few places, each of them
    is a U+FFFD.

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
    if (text := _decoded(data, "utf-8")) is not None:
        return text
    for text in (_damaged_utf8(data), _decoded(data, declared or "")):
        if text is not None:
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


def _as_controls(error: UnicodeError) -> tuple[str, int]:
    if isinstance(error, UnicodeDecodeError) and error.object[error.start] in _CONTROLS:
        return chr(error.object[error.start]), error.start + 1
    raise error


codecs.register_error(_AS_CONTROLS, _as_controls)


def _damaged_utf8(data: bytes) -> str | None:
    text = data.decode("utf-8", "replace")
    broken = text.count("\ufffd")
    sound = len(text) - len(text.encode("ascii", "ignore")) - broken
    return text if sound >= _SOUND_FOR_EACH_BROKEN * broken else None


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        name = codecs.lookup(encoding).name
        name = _MEANT.get(name, name)
        # A declared UTF-7, or a codec that makes no text, is never meant.
        if name == "utf-7" or not name.startswith(
            ("utf", "cp", "iso", "koi", "gb", "big5", "euc", "shift", "mac")
        ):
            return None
        return data.decode(name, _AS_CONTROLS if name.startswith("cp125") else "strict")
    except (LookupError, UnicodeError, ValueError):
        return None
