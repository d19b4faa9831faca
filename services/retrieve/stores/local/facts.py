"""What a filter and permissions go by: each document's metadata and readers as rows, with indexes.

A fact is a document's name of metadata with one value, typed: `text`, `number`, `bool`, and beside
a text that is a date `date`, its microseconds since 1970. A list has one fact for each element.
Readers are facts of kind `reader`, without a name. The meaning of a filter is that of
`services.retrieve.stores.filters.matches`; tests/integration/test_local_filters.py holds both
against each other.
"""

import json
import math
import sqlite3
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from services.retrieve.stores.base import EVERYTHING, Metadata, Scope
from services.retrieve.stores.filters import (
    NEGATIVE,
    ORDERED,
    Comparison,
    Filter,
    Junction,
    Op,
    Scalar,
    instant,
    kind,
)

FactKind = Literal["text", "number", "bool", "date", "reader"]
Parameters = list[Scalar]
Numbers = NDArray[np.int64]

# `value` has no declared type: numbers stay as exact as they are, and a text stays one.
# Only documents that name their readers have a row in `restricted`, which keeps the list as it was.
TABLES = """
CREATE TABLE facts (
    name TEXT NOT NULL, kind TEXT NOT NULL, value NOT NULL,
    document INTEGER NOT NULL REFERENCES documents(number) ON DELETE CASCADE,
    PRIMARY KEY (name, kind, value, document)) WITHOUT ROWID;
CREATE INDEX facts_of_document ON facts (document);
CREATE TABLE restricted (
    document INTEGER PRIMARY KEY REFERENCES documents(number) ON DELETE CASCADE,
    readers TEXT NOT NULL);
"""

_PART = 4096  # documents looked at at a time
_ORDER = {Op.GT: ">", Op.GTE: ">=", Op.LT: "<", Op.LTE: "<="}


def store_facts(
    db: sqlite3.Connection, document: int, metadata: Metadata, readers: Sequence[str] | None
) -> None:
    """Write the facts of a document that has none yet, by its number."""
    if readers is not None:
        db.execute("INSERT INTO restricted VALUES (?, ?)", (document, packed_readers(readers)))
    _store(db, document, metadata, readers)


def packed_readers(readers: Sequence[str] | None) -> str | None:
    """The readers of a document as `restricted` keeps them; None, and no row, where all may."""
    return None if readers is None else json.dumps(list(readers), ensure_ascii=False)


def facts_of(
    metadata: Metadata, readers: Sequence[str] | None
) -> set[tuple[str, FactKind, Scalar]]:
    """The facts of a document: name, kind and value of each."""
    return {*_facts(metadata), *(("", "reader", name) for name in readers or ())}


def derive_facts(db: sqlite3.Connection) -> None:
    """Make the tables of a database that has none, and the facts of all its documents.

    Raises ValueError where a document's metadata can't be read.
    """
    # One by one: executescript would commit the transaction that this is part of.
    for statement in filter(str.strip, TABLES.split(";")):
        db.execute(statement)
    for number, metadata in db.execute("SELECT number, metadata FROM documents"):
        store_facts(db, number, json.loads(metadata), None)


def derive_anew(db: sqlite3.Connection) -> None:
    """Make the facts of all documents anew, from their metadata and readers, within a transaction.

    Raises ValueError where these can't be read.
    """
    db.execute("DELETE FROM facts")
    rows = db.execute(
        "SELECT number, metadata, readers FROM documents LEFT JOIN restricted ON document = number"
    )
    for number, metadata, readers in rows:
        _store(db, number, json.loads(metadata), None if readers is None else json.loads(readers))


def _store(
    db: sqlite3.Connection, document: int, metadata: Metadata, readers: Sequence[str] | None
) -> None:
    db.executemany(
        "INSERT INTO facts (name, kind, value, document) VALUES (?, ?, ?, ?)",
        [(*fact, document) for fact in facts_of(metadata, readers)],
    )


@dataclass(frozen=True)
class Documents:
    """A set of documents by their numbers, ascending: these, or (`left_out`) all but these.

    What a filter speaks of is mostly the smaller part, and found by an index; the rest never has to
    be listed.
    """

    numbers: Numbers
    left_out: bool = False

    def opposite(self) -> "Documents":
        """All documents that are not in the set."""
        return Documents(self.numbers, not self.left_out)

    def both(self, other: "Documents") -> "Documents":
        """The documents that are in both sets."""
        if self.left_out and other.left_out:
            return Documents(np.union1d(self.numbers, other.numbers), left_out=True)
        if self.left_out:
            return other.both(self)
        common = np.setdiff1d if other.left_out else np.intersect1d
        return Documents(common(self.numbers, other.numbers, assume_unique=True))

    def either(self, other: "Documents") -> "Documents":
        """The documents that are in one of the sets."""
        return self.opposite().both(other.opposite()).opposite()

    def where(self, numbers: Numbers) -> NDArray[np.bool_]:
        """Which of some documents are in the set."""
        return np.isin(numbers, self.numbers, invert=self.left_out)


def documents_in(db: sqlite3.Connection, scope: Scope) -> Documents:
    """The documents that a scope sees. Several queries, so that it wants a transaction."""
    found = Documents(np.empty(0, np.int64), left_out=True)
    if scope.filter is not None:
        found = _passing(db, scope.filter)
    if scope.readers is not None:
        test, names = _one_of(sorted(scope.readers))
        opened = _numbers(db, f"facts WHERE name = '' AND kind = 'reader' AND value {test}", names)
        closed = np.setdiff1d(_numbers(db, "restricted", []), opened, assume_unique=True)
        found = found.both(Documents(closed, left_out=True))
    return found


def page_in(
    db: sqlite3.Connection, limit: int, after: str, scope: Scope, prefix: str = ""
) -> list[int]:
    """The numbers of at most `limit` documents of the scope by their ids, those after an id that
    begin so; no more are read than it takes to find them."""
    later = "SELECT number FROM documents WHERE id > ? AND id >= ?"
    bounds = [after, prefix]
    beyond = _beyond(prefix)
    if beyond is not None:
        later, bounds = f"{later} AND id < ?", [*bounds, beyond]
    later = f"{later} ORDER BY id"
    if scope == EVERYTHING:
        return [number for (number,) in db.execute(f"{later} LIMIT ?", (*bounds, limit))]
    within = documents_in(db, scope)
    rows = db.execute(later, bounds)
    page: list[int] = []
    while len(page) < limit and (part := rows.fetchmany(_PART)):
        numbers = np.array(part, np.int64).ravel()
        page += numbers[within.where(numbers)].tolist()
    return page[:limit]


def _beyond(prefix: str) -> str | None:
    """The first of all texts after those that begin so, by code points; None where there is none"""
    for end in range(len(prefix), 0, -1):
        following = ord(prefix[end - 1]) + 1
        if following <= sys.maxunicode:
            # Half of a surrogate pair is no text.
            following = 0xE000 if following == 0xD800 else following
            return prefix[: end - 1] + chr(following)
    return None


def _facts(metadata: Metadata) -> Iterable[tuple[str, FactKind, Scalar]]:
    for name, value in metadata.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and math.isnan(one):
                continue  # equals nothing
            yield name, kind(one), one
            moment = instant(one) if isinstance(one, str) else None
            if moment is not None:
                yield name, "date", moment


def _passing(db: sqlite3.Connection, condition: Filter) -> Documents:
    if isinstance(condition, Junction):
        join = Documents.both if condition.op == "and" else Documents.either
        return reduce(join, (_passing(db, part) for part in condition.filters))
    found = [np.empty(0, np.int64)]  # a list may be empty
    for fact, test, values in _tests(condition):
        source = f"facts WHERE name = ? AND kind = '{fact}' AND value {test}"
        found.append(_numbers(db, source, [condition.key, *values]))
    return Documents(np.unique(np.concatenate(found)), left_out=condition.op in NEGATIVE)


def _tests(condition: Comparison) -> Iterable[tuple[FactKind, str, Parameters]]:
    """What a fact's value must be, for each kind, to make the comparison true, taken positively."""
    if condition.op in ORDERED:
        value = condition.values[0]
        moment = instant(value) if isinstance(value, str) else None
        order = f"{_ORDER[condition.op]} ?"
        # A text that is no date is refused by parse_filter.
        yield ("number", order, [value]) if moment is None else ("date", order, [moment])
        return
    by_kind: dict[FactKind, Parameters] = {}
    for value in condition.values:
        by_kind.setdefault(kind(value), []).append(value)
    for fact, values in by_kind.items():
        yield fact, *_one_of(values)


def _one_of(values: Sequence[Scalar]) -> tuple[str, Parameters]:
    return f"IN ({', '.join('?' * len(values))})", list(values)


def _numbers(db: sqlite3.Connection, source: str, parameters: Parameters) -> Numbers:
    """The documents of some facts, ascending, each once. `source` holds no caller's text."""
    rows = db.execute(f"SELECT document FROM {source}", parameters)  # noqa: S608 - a source is ours
    return np.unique(np.fromiter((number for (number,) in rows), np.int64))
