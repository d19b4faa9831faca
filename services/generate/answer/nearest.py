"""An honest "not in the sources", with the passages that are nearest, for a reader to look on."""

import re
from collections.abc import Sequence
from urllib.parse import quote

from services.generate.reading.citations import Annotation, Answer
from services.generate.reading.passages import Passage

NOT_ANSWERED = "The sources do not answer this question."
_NEAREST = "\n\nNearest passages:"
_MOST = 3  # documents
_TITLE_CHARACTERS = 100
# What would be read as Markdown, or as a marker of a citation.
_MARKUP = re.compile(r"[\[\]()<>`*_\\|#!~]|[^\S ]|[\x00-\x1f\x7f]")


def not_answered(passages: Sequence[Passage]) -> Answer:
    """The sentence, and up to three documents, by their best passage, with a marker of each."""
    content = NOT_ANSWERED
    annotations: list[Annotation] = []
    first = {one.document_id: one for one in reversed(passages)}
    nearest = sorted(first.values(), key=lambda one: one.n)[:_MOST]
    for one in nearest:
        content += f"{'' if annotations else _NEAREST}\n- "
        start = len(content)
        content += f"{_name(one)} [{one.n}]"
        annotations.append(Annotation(start, len(content), one.n))
    return Answer(content, tuple(annotations), ())


def _name(passage: Passage) -> str:
    """The title as plain text, as a link where the document has an address on the web."""
    title = " ".join(_MARKUP.sub(" ", passage.title or passage.document_id).split())
    title = title[:_TITLE_CHARACTERS] or "untitled"
    url = passage.url or ""
    if not url.startswith(("https://", "http://")):
        return title
    return f"[{title}]({quote(url, safe=':/?#@!$&*+,;=%~')})"
