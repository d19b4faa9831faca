"""Neighbours: passages are widened by what stands around them in their document. Pure functions.

No text is made up and none comes twice: chunks are joined by their character offsets, so that what
two of them share stands once, and what lies between two of them, which is nothing but white space,
becomes as many line feeds. `text[i]` of a widened passage is character `start + i` of its document,
white space between chunks aside.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import ChunkRecord

Count = Callable[
    [str, str], int
]  # tokens of a text, as the model of a corpus counts: (corpus, text)


@dataclass(frozen=True, slots=True)
class Widened:
    """A widened passage and the hits it is made of.

    passage: ranked as the best of them and with its id and number; text, start, end and tokens are
    those of the whole. hits: as they were found, best first, the first with the same id.
    """

    passage: Passage
    hits: tuple[Passage, ...]


def widen(
    passages: Sequence[Passage],
    neighbours: Mapping[ChunkKey, Sequence[ChunkRecord]],
    count: Count,
) -> list[Widened]:
    """The passages (best first), each with the chunks around it; those that touch become one.

    neighbours: of each passage the chunks of its document that it may be widened by, itself among
    them. Only those that follow each other without a hole count: next to a chunk that was deleted
    meanwhile, or that may not be seen, a passage ends. Two passages of a document touch if they
    share a chunk or one begins with the chunk after the other's last; what they become stands at
    the place of the better one.
    """
    spans = [
        _unbroken(one.record, neighbours.get(one.ranked.key, (one.record,))) for one in passages
    ]
    widened = []
    for group in _touching(passages, spans):
        best = group[0]
        chunks = {chunk.number: chunk for place in group for chunk in spans[place]}
        whole = [chunks[number] for number in sorted(chunks)]
        record = passages[best].record
        if len(whole) > 1:
            text = join(whole)
            record = replace(
                record,
                text=text,
                start=whole[0].start,
                end=max(chunk.end for chunk in whole),
                tokens=count(passages[best].ranked.key.corpus, text),
            )
        widened.append(
            Widened(
                Passage(passages[best].ranked, record), tuple(passages[place] for place in group)
            )
        )
    return widened


def join(chunks: Sequence[ChunkRecord]) -> str:
    """The text from the first chunk's start to the last one's end; chunks in order of their start.

    What was read already is left out, so that overlaps stand once.
    """
    text, end = "", chunks[0].start
    for chunk in chunks:
        if chunk.end <= end:
            continue
        text += "\n" * max(0, chunk.start - end) + chunk.text[max(0, end - chunk.start) :]
        end = chunk.end
    return text


def _unbroken(record: ChunkRecord, around: Sequence[ChunkRecord]) -> list[ChunkRecord]:
    """The chunks around a passage that its own number reaches step by step, in order.

    The passage's own record stands for itself: what the others are must be of the same document.
    """
    known = {one.number: one for one in around if one.document_id == record.document_id}
    known[record.number] = record
    first = last = record.number
    while first - 1 in known:
        first -= 1
    while last + 1 in known:
        last += 1
    return [known[number] for number in range(first, last + 1)]


def _touching(
    passages: Sequence[Passage], spans: Sequence[Sequence[ChunkRecord]]
) -> list[list[int]]:
    """Places of passages that touch, each group best first, groups by their best."""
    documents: dict[tuple[str, str], list[int]] = {}
    for place, one in enumerate(passages):
        documents.setdefault((one.ranked.key.corpus, one.record.document_id), []).append(place)
    groups: list[list[int]] = []
    for own in documents.values():
        in_order = sorted(own, key=lambda place: spans[place][0].number)
        groups.append([in_order[0]])
        reached = spans[in_order[0]][-1].number
        for place in in_order[1:]:
            if spans[place][0].number <= reached + 1:
                groups[-1].append(place)
            else:
                groups.append([place])
            reached = max(reached, spans[place][-1].number)
    return sorted(sorted(group) for group in groups)
