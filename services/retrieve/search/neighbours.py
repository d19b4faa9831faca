"""Neighbours: passages are widened by what stands around them in their document. Pure functions.

No text is made up and none comes twice: chunks are joined by their character offsets, so that what
two of them share stands once, and what lies between two of them, which is nothing but white space,
becomes as many line feeds. `text[i]` of a widened passage is character `start + i` of its document,
white space between chunks aside.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from services.retrieve.search.candidates import ChunkKey
from services.retrieve.search.pack import Passage
from services.retrieve.stores.base import ChunkRecord, Extent
from services.retrieve.stores.outline import joined

# Characters of all that hits of an answer are widened to: a desk that is asked for the documents
# of a thousand hits would else be busy with megabytes of text that nobody reads.
MOST_CHARACTERS = 2_000_000

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


def affordable(
    keys: Sequence[ChunkKey], extents: Mapping[ChunkKey, Extent], most: int = MOST_CHARACTERS
) -> list[ChunkKey]:
    """Which passages (best first) may be widened to their extents, for at most `most` characters.

    What several of a document share costs once; one that is too long leaves room for the next. One
    without an extent, as its chunk was deleted meanwhile, costs nothing.
    """
    taken: dict[tuple[str, str], list[tuple[int, int]]] = {}
    kept = []
    for key in keys:
        extent = extents.get(key)
        if extent is None:
            kept.append(key)
            continue
        document = (key.corpus, extent.document_id)
        others = taken.get(document, [])
        met = [one for one in others if one[0] <= extent.end and extent.start <= one[1]]
        start = min([extent.start, *(one[0] for one in met)])
        end = max([extent.end, *(one[1] for one in met)])
        cost = end - start - sum(one[1] - one[0] for one in met)
        if cost > most:
            continue
        most -= cost
        taken[document] = [*(one for one in others if one not in met), (start, end)]
        kept.append(key)
    return kept


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
        whole: list[ChunkRecord] = []
        for span in sorted((spans[place] for place in group), key=lambda span: span[0].number):
            done = whole[-1].number + 1 - span[0].number if whole else 0
            whole += span[max(0, done) :]
        record = passages[best].record
        if len(whole) > 1:
            text = join(whole)
            record = replace(
                record,
                text=text,
                start=whole[0].start,
                end=max(chunk.end for chunk in whole),
                tokens=count(passages[best].ranked.key.corpus, text),
                place=joined([chunk.place for chunk in whole]),
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


def _unbroken(record: ChunkRecord, around: Sequence[ChunkRecord]) -> Sequence[ChunkRecord]:
    """The chunks around a passage that its own number reaches step by step, in order."""
    at = bisect_left(around, record.number, key=lambda one: one.number)
    if at == len(around) or around[at].number != record.number:
        return [record]
    # Without a hole numbers rise as places do; with one, faster.
    places, offset = range(len(around)), record.number - at
    first = bisect_left(places, offset, key=lambda place: around[place].number - place)
    last = bisect_right(places, offset, key=lambda place: around[place].number - place)
    # Mostly all of them: then no copy, which would be of a whole document for each of its hits.
    return around if last - first == len(around) else around[first:last]


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
