"""What a scope asks of points in Qdrant, held against what it means."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qdrant_client.local.payload_filters import check_filter

from services.retrieve.stores.base import Metadata, Scope
from services.retrieve.stores.filters import Filter, parse_filter
from services.retrieve.stores.qdrant.filters import asked_of, payload_of
from tests.truth_tables import HEADINGS, truths

KEYS = ["a", "b", "a.b", 'c[0]"', ""]
NUMBERS = [0, 1, 1.0, -1, 0.5, 2**53, 2**53 + 1, float(2**53), 2**62, -(2**63), 1e300]
TEXTS = ["x", "X", "1", "true", "2026-01-31", "2026-01-31T00:00:00.000001Z", "x" * 300, "9999"]
SCALARS = st.sampled_from([*NUMBERS, *TEXTS, True, False])
METADATA = st.dictionaries(
    st.sampled_from(KEYS[:4]), SCALARS | st.lists(st.sampled_from(TEXTS), max_size=3), max_size=4
)
READERS = st.none() | st.lists(st.sampled_from(["hr", "law", "[]"]), max_size=2).map(tuple)


def comparisons() -> st.SearchStrategy[dict[str, Any]]:
    key = st.sampled_from(KEYS[:4])
    one = st.builds(
        lambda op, key, value: {"type": op, "key": key, "value": value},
        st.sampled_from(["eq", "ne"]),
        key,
        SCALARS,
    )
    several = st.builds(
        lambda op, key, value: {"type": op, "key": key, "value": value},
        st.sampled_from(["in", "nin"]),
        key,
        st.lists(SCALARS, max_size=3),
    )
    order = st.builds(
        lambda op, key, value: {"type": op, "key": key, "value": value},
        st.sampled_from(["gt", "gte", "lt", "lte"]),
        key,
        st.sampled_from([*NUMBERS, "2026-01-31", "2026-01-31T00:00:00.000001Z"]),
    )
    return one | several | order


FILTERS = st.recursive(
    comparisons(),
    lambda inner: st.builds(
        lambda op, parts: {"type": op, "filters": parts},
        st.sampled_from(["and", "or"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=5,
)


def lets_through(scope: Scope, metadata: Metadata, readers: tuple[str, ...] | None) -> bool:
    """Whether Qdrant gives a point of a document with these."""
    asked = asked_of(scope)
    payload = json.loads(json.dumps(payload_of(metadata, readers)))
    if asked.nothing:
        return False
    return asked.condition is None or check_filter(asked.condition, payload, 1, {})


@given(METADATA, READERS, st.none() | FILTERS, READERS)
def test_what_a_scope_sees_is_let_through(
    metadata: Metadata,
    readers: tuple[str, ...] | None,
    body: dict[str, Any] | None,
    asking: tuple[str, ...] | None,
) -> None:
    scope = Scope(parse_filter(body), None if asking is None else frozenset(asking))
    if scope.sees(metadata, readers):
        assert lets_through(scope, metadata, readers)


@given(METADATA, READERS, st.none() | FILTERS, READERS)
def test_what_floats_can_hold_is_decided_by_qdrant_alone(
    metadata: Metadata,
    readers: tuple[str, ...] | None,
    body: dict[str, Any] | None,
    asking: tuple[str, ...] | None,
) -> None:
    scope = Scope(parse_filter(body), None if asking is None else frozenset(asking))
    if not _large(json.dumps(body)):
        assert lets_through(scope, metadata, readers) is scope.sees(metadata, readers)


def _large(text: str) -> bool:
    return any(word in text for word in ("9007199254740", "4611686018", "9223372", "1e+300"))


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_truth_tables_of_the_handbook_hold_in_a_query(heading: str) -> None:
    for metadata, condition, true in truths(heading):
        assert lets_through(Scope(condition), metadata, None) is true, (metadata, condition)


def test_a_filter_that_is_true_or_false_of_all_asks_nothing() -> None:
    def asked(body: dict[str, Any]) -> Any:
        return asked_of(Scope(parse_filter(body)))

    never = {"type": "in", "key": "k", "value": []}
    always = {"type": "nin", "key": "k", "value": []}
    assert asked(never).nothing
    assert asked(always).condition is None
    assert asked({"type": "or", "filters": [never, always]}).condition is None
    assert asked({"type": "and", "filters": [never, always]}).nothing
    assert asked_of(Scope()).condition is None


def test_the_fields_of_numbers_that_want_an_index_are_told() -> None:
    body = {"type": "gt", "key": "year", "value": 2020}
    condition: Filter | None = parse_filter(body)
    (field,) = asked_of(Scope(condition)).ranges
    assert payload_of({"year": 2021}, None)[field] == [2021.0]
    assert asked_of(Scope(parse_filter({**body, "type": "eq"}))).ranges == frozenset()
