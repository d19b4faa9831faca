"""A document's readable text and structure from the bytes of its file."""

from services.retrieve.corpus.parsing.decode import decode
from services.retrieve.corpus.parsing.formats import TEXTS, format_of, language_of, meant_by
from services.retrieve.corpus.parsing.layout import Layout
from services.retrieve.corpus.parsing.mail import read_mail
from services.retrieve.corpus.parsing.office import read_office
from services.retrieve.corpus.parsing.parse import Parsed, parse, parsed
from services.retrieve.stores.base import DocumentFormat
from shared.errors import ApiError


def parse_file(
    name: str, data: bytes, format_: DocumentFormat | None, title: str | None, *, param: str
) -> Parsed:
    """Read a file; a given title goes before one that is found in it.

    format_: what the caller says it is; None: what `format_of` finds. Nothing is fetched and
    nothing in the file is run. Raises ApiError naming `param`: 415 `unsupported_format`, 422
    `no_text`, `broken_text`, `broken_file`, `encrypted_file`, `file_too_large`. What is hostile may
    still take long, or much memory: call it in a worker.
    """
    if not data:
        raise ApiError(422, "no_text", f"{param} is empty: there is nothing in it", param=param)
    format_ = _sure(name, data, format_, param)
    try:
        if format_ in TEXTS:
            text = decode(data, param=param)
            return parse(text, format_, title, param=param, language=language_of(name))
        layout = Layout()
        if format_ == "eml":
            found = read_mail(data, layout, param=param)
        else:
            found = read_office(data, format_, layout, param=param)
        return parsed(layout, format_, title, found, param=param)
    except RecursionError:
        raise ApiError(
            422, "broken_file", f"{param} is nested too deep to be read", param=param
        ) from None


def _sure(name: str, data: bytes, format_: DocumentFormat | None, param: str) -> DocumentFormat:
    """The format to read as. Raises ApiError 415."""
    found = format_of(name, data)
    if format_ is None:
        format_ = found
    elif format_ not in TEXTS and format_ != "eml" and found != format_:
        raise ApiError(
            415,
            "unsupported_format",
            f"{param} is not {format_.upper()}" + (f" but {found.upper()}" if found else ""),
            param=param,
        )
    if format_ is None:
        raise ApiError(415, "unsupported_format", f"{param} is {_what_else(name)}", param=param)
    return format_


def _what_else(name: str) -> str:
    """What a file is that can't be read, as far as its name tells what was meant."""
    match meant_by(name):
        case "pdf":
            return "no PDF, as its name says it is"
        case "docx" | "pptx" | "xlsx" as meant:
            return f"damaged or no {meant.upper()}, as its name says it is"
        case _:
            return (
                "in no format that can be read: text, Markdown, HTML, PDF, DOCX, PPTX, XLSX, CSV, "
                "JSON, EML and source code are"
            )
