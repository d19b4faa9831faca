"""The hash chain of the audit trail. Pure functions.

Each record is a link: its number, the hash of the link before it, its body as text, and its hash,
the SHA-256 of the canonical JSON (keys sorted, no spaces, UTF-8) of `{"body", "previous", "seq"}`.
Whoever changes, removes, inserts or moves a record leaves a link that does not fit; whoever then
computes all later hashes anew ends with another head than the one that is kept beside the chain
and in the service's log.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, order=True)
class Head:
    """The last link of a chain: its number, from 1, and its hash in hex."""

    seq: int
    hash: str

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


START = Head(0, "0" * 64)  # what the first link follows


@dataclass(frozen=True)
class Link:
    """One record of the chain. body: JSON as it is hashed. previous, hash: SHA-256 in hex."""

    seq: int
    previous: str
    hash: str
    body: str

    @property
    def head(self) -> Head:
        """The head of a chain that ends here."""
        return Head(self.seq, self.hash)


@dataclass(frozen=True)
class Finding:
    """Something wrong with a chain. seq: the record where it shows."""

    seq: int
    what: str


def canonical(body: Mapping[str, Any]) -> str:
    """JSON with sorted keys and without spaces."""
    return orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()


def digest(seq: int, previous: str, body: str) -> str:
    """The hash of a link, in hex."""
    return hashlib.sha256(
        f'{{"body":{body},"previous":"{previous}","seq":{seq}}}'.encode()
    ).hexdigest()


def linked(head: Head, bodies: Iterable[str]) -> Iterator[Link]:
    """The links of some bodies behind a head, in order."""
    for body in bodies:
        hashed = digest(head.seq + 1, head.hash, body)
        yield Link(head.seq + 1, head.hash, hashed, body)
        head = Head(head.seq + 1, hashed)


class Inspection:
    """A walk along a chain, link by link in the order of their numbers.

    anchors: heads that the chain had once, as a log tells them.
    """

    def __init__(self, anchors: Sequence[Head] = ()) -> None:
        self.records = 0
        self.last = START
        self._anchors = set(anchors) - {START}

    def take(self, link: Link) -> Iterator[Finding]:
        """What is wrong with the next link."""
        expected = self.last.seq + 1
        if link.seq < expected:  # only below the first: numbers are in order
            yield Finding(link.seq, f"record {link.seq} was put before the first")
        elif link.seq > expected:
            yield Finding(expected, f"{_range(expected, link.seq - 1)} missing")
        elif link.previous != self.last.hash:
            yield Finding(link.seq, f"record {link.seq} does not follow the one before it")
        if digest(link.seq, link.previous, link.body) != link.hash:
            yield Finding(link.seq, f"record {link.seq} was changed, or is another one's")
        for anchor in sorted(one for one in self._anchors if one.seq == link.seq):
            self._anchors.discard(anchor)
            if anchor != link.head:
                yield Finding(link.seq, f"record {link.seq} is not the one of {anchor.hash[:12]}…")
        self.records += 1
        self.last = link.head

    def end(self, head: Head | None) -> Iterator[Finding]:
        """What is wrong with the end. head: the one that is kept beside the chain."""
        last = self.last
        if head is None:
            if self.records:
                yield Finding(last.seq, "the head that is kept beside the records is missing")
        elif head.seq > last.seq:
            yield Finding(last.seq + 1, f"{_range(last.seq + 1, head.seq)} missing at the end")
        elif head.seq < last.seq:
            what = f"the head is record {head.seq}, and {_range(head.seq + 1, last.seq)} behind it"
            yield Finding(head.seq + 1, what)
        elif head != last:
            yield Finding(last.seq, f"record {last.seq} is not the one that the head tells")
        for anchor in sorted(self._anchors):
            yield Finding(anchor.seq, f"record {anchor.seq} of {anchor.hash[:12]}… is missing")


def _range(first: int, last: int) -> str:
    return f"record {first} is" if first == last else f"records {first} to {last} are"
