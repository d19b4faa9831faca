"""The local store's SQL lets through what `Scope.sees` says, whatever the metadata and filter."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from services.retrieve.corpus.chunk import CHUNKER
from services.retrieve.stores.base import Metadata, Scope
from services.retrieve.stores.corpus import CorpusSpec
from services.retrieve.stores.filters import Comparison, Filter, Junction, Op, parse_filter
from services.retrieve.stores.local.database import Database
from services.retrieve.stores.local.scopes import Scopes
from tests.corpora import STAMP, document

# Few names and values, close to each other, so that filters and metadata meet.
NAMES = st.sampled_from(["a", "b", "é", "a\x00b", "readers"])
NUMBERS = st.sampled_from(
    [0, 1, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, -0.0, 1.0, 0.5, 2.0**53, 2.0**63, 1e308]
) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)  # fmt: skip
DATES = st.sampled_from(
    [
        "2026-01-31",
        "2026-01-31T00:00:00Z",
        "2026-01-31 01:00+01:00",
        "2026-01-30T23:59:59.999999-00:30",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "2026-02-30",
        "2026-W05-6",
    ]
)
TEXTS = st.sampled_from(["", "1", "true", "x", "X", "é", "e\u0301", "a\x00b", "😀", "日本"]) | DATES
SCALARS = TEXTS | NUMBERS | st.booleans()
VALUES = SCALARS | st.lists(TEXTS, max_size=3)
DATED = DATES.filter(lambda text: text not in ("2026-02-30", "2026-W05-6"))
COMPARISONS = (
    st.builds(Comparison, NAMES, st.sampled_from([Op.EQ, Op.NE]), SCALARS)
    | st.builds(Comparison, NAMES, st.sampled_from([Op.GT, Op.GTE, Op.LT, Op.LTE]), NUMBERS | DATED)
    | st.builds(
        Comparison,
        NAMES,
        st.sampled_from([Op.IN, Op.NIN]),
        st.lists(SCALARS, max_size=4).map(tuple),
    )
)
FILTERS: st.SearchStrategy[Filter] = st.recursive(
    COMPARISONS,
    lambda parts: st.builds(
        Junction, st.sampled_from(["and", "or"]), st.lists(parts, min_size=1, max_size=3).map(tuple)
    ),
    max_leaves=6,
)
GROUPS = st.sampled_from(["hr", "law", "é", ""])
READERS = st.none() | st.lists(GROUPS, max_size=2).map(tuple)
SCOPES = st.builds(Scope, st.none() | FILTERS, st.none() | st.frozensets(GROUPS, max_size=2))
DOCUMENTS = st.lists(
    st.tuples(st.dictionaries(NAMES, VALUES, max_size=4), READERS), min_size=1, max_size=6
)


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """A database that each example fills anew."""
    with TemporaryDirectory() as folder:
        Database.create(Path(folder), CorpusSpec("c"), STAMP, CHUNKER)
        database = Database.open(Path(folder))
        yield database
        database.close()


def fill(database: Database, documents: list[tuple[Any, Any]]) -> dict[int, tuple[Any, Any]]:
    """Put these documents (metadata, readers) in place of all others; each chunk's document."""
    owner = {}
    with database.transaction() as change:
        for number in range(6):
            change.delete(f"d{number}")
        for number, (metadata, readers) in enumerate(documents):
            before = len(change.added)
            change.replace(document(f"d{number}", ["one", "two"], None, metadata, readers))
            owner.update(dict.fromkeys(change.added[before:], (metadata, readers)))
    return owner


@given(DOCUMENTS, st.lists(SCOPES, min_size=1, max_size=4))
@example([({"a": 2**53 + 1}, None)], [Scope(Comparison("a", Op.EQ, 2.0**53))])
@example([({"a": 2**63 - 1}, None)], [Scope(Comparison("a", Op.GTE, 2.0**63))])
@example([({"a": True}, None), ({"a": 1}, ())], [Scope(Comparison("a", Op.NE, 1), frozenset())])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sql_and_the_reference_agree(
    database: Database, documents: list[tuple[Metadata, Any]], scopes: list[Scope]
) -> None:
    owner = fill(database, documents)
    found = Scopes(database)
    for scope in scopes:
        wanted = [key for key, its_document in owner.items() if scope.sees(*its_document)]
        allowed = found.allowed(scope)
        if allowed is None:
            assert len(wanted) == len(owner), scope
        else:
            assert allowed.tolist() == sorted(wanted), scope
        listed = database.documents(10, None, scope)
        assert {one.id for one in listed} == {
            f"d{place}" for place, one in enumerate(documents) if scope.sees(*one)
        }
        for place, one in enumerate(documents):
            assert (database.document(f"d{place}", scope) is not None) == scope.sees(*one)


def test_the_largest_filter_that_is_taken_is_answered(database: Database) -> None:
    owner = fill(database, [({"a": "x7"}, None), ({"a": 3}, None)])
    values: list[Any] = [*(f"x{number}" for number in range(500)), *range(500, 1000)]
    lists = [{"type": "in", "key": "a", "value": values}] * 3
    nested: Any = {"type": "and", "filters": lists}
    singles = [{"type": "ne", "key": f"k{number}", "value": number} for number in range(245)]
    nested = {"type": "and", "filters": [nested, *singles]}
    for _ in range(13):
        nested = {"type": "or", "filters": [nested]}
    allowed = Scopes(database).allowed(Scope(parse_filter(nested), frozenset({"hr"})))
    assert allowed is not None
    assert {owner[key][0]["a"] for key in allowed.tolist()} == {"x7"}


def test_scopes_that_python_takes_for_equal_are_told_apart(database: Database) -> None:
    owner = fill(database, [({"a": True}, None), ({"a": 1}, None)])
    found = Scopes(database)
    for value in (True, 1, True):
        allowed = found.allowed(Scope(Comparison("a", Op.EQ, value)))
        assert allowed is not None
        assert [owner[key][0]["a"] is True for key in allowed.tolist()] == [value is True] * 2


def test_a_scope_is_asked_of_the_database_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, [({"a": 1}, None), ({"a": 2}, None)])
    found = Scopes(database)
    asked: list[Scope] = []
    ask = database.documents_in

    def counted(scope: Scope) -> Any:
        asked.append(scope)
        return ask(scope)

    monkeypatch.setattr(database, "documents_in", counted)
    first = Scope(parse_filter({"type": "eq", "key": "a", "value": 1}))
    again = Scope(parse_filter({"type": "eq", "key": "a", "value": 1}))
    assert found.allowed(first) is found.allowed(again)
    assert asked == [first]
    found.change([], [], [])
    found.allowed(first)
    assert asked == [first, first]
