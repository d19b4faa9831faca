"""The readable text of a mail (EML)."""

from email import policy
from email.errors import MessageError
from email.message import EmailMessage
from email.parser import BytesParser

from services.retrieve.corpus.parsing.decode import decode
from services.retrieve.corpus.parsing.html import read_html
from services.retrieve.corpus.parsing.layout import Layout
from shared.errors import ApiError

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_MOST_PARTS = 1000


def read_mail(data: bytes, layout: Layout, *, param: str) -> str | None:
    """Lay out a mail: who wrote to whom and when, its text, and the names of what is attached,
    which is not read; its title is its subject.

    Raises ApiError 422 `broken_file` for what is no mail.
    """
    try:
        message = BytesParser(EmailMessage, policy=policy.default).parsebytes(data)
        told = {name: " ".join(str(message[name] or "").split()) for name in _HEADERS}
        if not any(told.values()):
            raise ValueError("it has none of a mail's headers")
        for header, value in told.items():
            if value:
                layout.text(f"{header}: {value}")
                layout.gap(1)
        layout.gap(2)
        body = message.get_body(("plain", "html"))
        if isinstance(body, EmailMessage):
            _body(body, layout, param)
        for part, _ in zip(message.walk(), range(_MOST_PARTS), strict=False):
            if name := part.get_filename():
                layout.gap(1)
                layout.mark("- ")
                layout.text(f"Attachment: {' '.join(name.split())}")
    except (MessageError, LookupError, ValueError, TypeError, AttributeError) as error:
        # The parser of the standard library meets broken headers with any of these.
        raise ApiError(
            422, "broken_file", f"{param} can't be read as a mail: {error}", param=param
        ) from None
    return told["Subject"] or None


def _body(part: EmailMessage, layout: Layout, param: str) -> None:
    content = part.get_payload(decode=True)
    if not isinstance(content, bytes) or not content.strip():
        return
    text = decode(content, param=param, declared=part.get_content_charset())
    if part.get_content_subtype() == "html":
        read_html(text, layout)
    else:
        layout.text(text)
    layout.gap(2)
