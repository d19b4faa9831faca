"""Claims and their citations: reads ``[1]``, ``[1,2]`` and ``[1][2]`` out of a text. Pure."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass

from services.generate.reading.sentences import Kind, split
from services.generate.reading.words import without_markers

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*[,;]\s*\d{1,3})*)\]")


@dataclass(frozen=True)
class Claim:
    """One sentence of an answer.

    text: without markers. cited: the passage numbers it names, in order, each once.
    kind: what the sentence is in the layout. gap: the white space that stood before it.
    """

    text: str
    cited: tuple[int, ...]
    kind: Kind = Kind.PROSE
    gap: str = ""


@dataclass(frozen=True)
class Annotation:
    """A citation in an answer's content: characters [start, end) are what passage `n` supports."""

    start: int
    end: int
    n: int


@dataclass(frozen=True)
class Answer:
    """A finished text with its citations. claims: in order, as they were verified."""

    content: str
    annotations: tuple[Annotation, ...]
    claims: tuple[Claim, ...]


def claims(draft: str) -> list[Claim]:
    """The sentences of a draft with what each cites; layout between them is kept in `gap`."""
    found = []
    last = 0
    for sentence in split(draft):
        cited = [
            int(number)
            for group in _MARKER.findall(sentence.text)
            for number in re.split(r"[,;]", group)
        ]
        text = without_markers(sentence.text).strip()
        # What stands between: white space, and marks of a list. Other marks are not kept.
        gap = re.sub(r"[^\s\-*\u2022\d.)]", "", draft[last : sentence.start])
        found.append(Claim(text, tuple(dict.fromkeys(cited)), sentence.kind, gap))
        last = sentence.end
    return found


def compose(claims: Sequence[Claim]) -> Answer:
    """The text of verified claims: each followed by its markers, as in ``A sentence. [1][2]``."""
    content = ""
    annotations: list[Annotation] = []
    for claim in claims:
        gap = claim.gap or " "
        content += gap if content else gap.lstrip()
        start = len(content)
        content += claim.text
        if claim.cited:
            content += " " + "".join(f"[{n}]" for n in claim.cited)
        annotations += [Annotation(start, len(content), n) for n in claim.cited]
    return Answer(content, tuple(annotations), tuple(claims))


def annotated(text: str, numbers: Container[int], verified: Sequence[Claim] = ()) -> Answer:
    """A text as it stands, with the citations of its sentences that name one of `numbers`.

    verified: its claims, as verification completed them; other sentences have their own markers.
    """
    completed = {claim.text: claim.cited for claim in verified}
    own = claims(text)
    annotations = [
        Annotation(sentence.start, sentence.end, n)
        for sentence, claim in zip(split(text), own, strict=True)
        for n in completed.get(claim.text, claim.cited)
        if n in numbers
    ]
    return Answer(text, tuple(annotations), tuple(own))
