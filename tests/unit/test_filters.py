"""Filters: what they mean, by the tables of the handbook, and what is refused."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.stores.base import EVERYTHING, Scope
from services.retrieve.stores.filters import (
    MAX_CHARACTERS,
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_KEY,
    MAX_LIST,
    MAX_TEXT,
    MAX_VALUES,
    Comparison,
    Junction,
    Op,
    instant,
    matches,
    parse_filter,
)
from shared.errors import ApiError
from tests.truth_tables import HEADINGS, rows, truths

EQ = {"type": "eq", "key": "a", "value": 1}


def refused(body: object) -> ApiError:
    with pytest.raises(ApiError) as failure:
        parse_filter(body)
    error = failure.value
    assert (error.status, error.code) == (422, "bad_filter")
    assert error.param is not None
    assert error.message.startswith(f"{error.param}: ")
    assert len(error.message) < 300
    return error


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_truth_tables_of_the_handbook_are_true(heading: str) -> None:
    table = list(truths(heading))
    assert len(table) >= 8
    for metadata, condition, true in table:
        assert matches(condition, metadata) is true, (metadata, condition)


def test_the_permissions_table_of_the_handbook_is_true() -> None:
    table = list(rows("permissions.md", "Who sees a document"))
    assert len(table) >= 5
    for stored, caller, result in table:
        held = json.loads(stored.strip("`"))
        names = None if caller == "an admin's key" else frozenset(re.findall(r"`([^`]+)`", caller))
        assert Scope(None, names).sees({}, held) is {"yes": True, "no": False}[result], stored


def test_the_limits_in_the_handbook_are_those_of_the_code() -> None:
    told = {
        name: int(value.split()[0].replace(",", "")) for name, value in rows("filters.md", "Limits")
    }
    assert told == {
        "depth of `and` and `or`": MAX_DEPTH,
        "comparisons": MAX_COMPARISONS,
        "values in one list": MAX_LIST,
        "values in all lists together": MAX_VALUES,
        "a key": MAX_KEY,
        "a text": MAX_TEXT,
        "all keys and texts together": MAX_CHARACTERS,
    }


@pytest.mark.parametrize("body", [None, {}, []])
def test_nothing_is_no_filter(body: object) -> None:
    assert parse_filter(body) is None


def test_a_filter_becomes_typed_hashable_values() -> None:
    body = {
        "type": "and",
        "filters": [
            {"type": "in", "key": "lang", "value": ["de", "en"]},
            {"type": "or", "filters": [{"type": "gte", "key": "year", "value": 2020}]},
        ],
    }
    parsed = parse_filter(body)
    assert parsed == Junction(
        "and",
        (
            Comparison("lang", Op.IN, ("de", "en")),
            Junction("or", (Comparison("year", Op.GTE, 2020),)),
        ),
    )
    assert hash(parsed) == hash(parse_filter(json.loads(json.dumps(body))))


def test_what_python_takes_for_equal_is_not_the_same_filter() -> None:
    one, true = Comparison("a", Op.EQ, 1), Comparison("a", Op.EQ, True)
    assert one != true
    assert len({one, true, Comparison("a", Op.IN, (1,)), Comparison("a", Op.IN, (True,))}) == 4


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ("year = 2026", "filter", "must be an object"),
        ([EQ], "filter", "must be an object"),
        (7, "filter", "must be an object"),
        ({"type": "like", "key": "a", "value": "x"}, "filter.type", "'like'"),
        ({"type": ["eq"], "key": "a", "value": "x"}, "filter.type", "a list"),
        ({"key": "a", "value": "x"}, "filter.type", "null"),
        ({"type": "eq", "key": "a"}, "filter.value", "missing"),
        ({"type": "eq", "value": 1}, "filter.key", "missing"),
        ({**EQ, "boost": 2}, "filter", "'boost'"),
        ({**EQ, "x" * 500: 2}, "filter", "…"),
        ({**EQ, "key": ""}, "filter.key", "1 to 128"),
        ({**EQ, "key": "k" * 129}, "filter.key", "1 to 128"),
        ({**EQ, "key": 7}, "filter.key", "1 to 128"),
        ({**EQ, "key": "\ud800"}, "filter.key", "1 to 128"),
        ({**EQ, "value": None}, "filter.value", "null"),
        ({**EQ, "value": {"gt": 1}}, "filter.value", "an object"),
        ({**EQ, "value": [1]}, "filter.value", "`in`"),
        ({**EQ, "value": "x" * 4097}, "filter.value", "4096"),
        ({**EQ, "value": "\udfff"}, "filter.value", "surrogate"),
        ({**EQ, "value": 2**63}, "filter.value", "64 bits"),
        ({**EQ, "value": float("nan")}, "filter.value", "finite"),
        ({**EQ, "value": float("inf")}, "filter.value", "finite"),
        ({"type": "gt", "key": "a", "value": True}, "filter.value", "is true"),
        ({"type": "lte", "key": "a", "value": "soon"}, "filter.value", "ISO 8601"),
        ({"type": "lt", "key": "a", "value": "2026-02-30"}, "filter.value", "ISO 8601"),
        ({"type": "gt", "key": "a", "value": [1]}, "filter.value", "no list"),
        ({"type": "in", "key": "a", "value": "x"}, "filter.value", "use eq"),
        ({"type": "nin", "key": "a", "value": 1}, "filter.value", "use ne"),
        ({"type": "in", "key": "a", "value": [1, None]}, "filter.value.1", "null"),
        ({"type": "in", "key": "a", "value": [[1]]}, "filter.value.0", "no list"),
        ({"type": "and", "filters": []}, "filter.filters", "at least one"),
        ({"type": "or", "filters": EQ}, "filter.filters", "at least one"),
        ({"type": "or"}, "filter.filters", "missing"),
        ({"type": "and", "filters": [EQ, {}]}, "filter.filters.1.type", "null"),
        ({"type": "and", "filters": [EQ], "key": "a"}, "filter", "'key'"),
        (
            {"type": "or", "filters": [EQ, {"type": "and", "filters": [{**EQ, "value": {}}]}]},
            "filter.filters.1.filters.0.value",
            "an object",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(body: object, param: str, told: str) -> None:
    error = refused(body)
    assert error.param == param
    assert told in error.message


def test_too_many_values_are_refused() -> None:
    at_most = {"type": "in", "key": "a", "value": list(range(MAX_LIST))}
    assert parse_filter(at_most) is not None
    error = refused({**at_most, "value": list(range(10_000))})
    assert "10000 values" in error.message
    assert str(MAX_LIST) in error.message
    assert "4000 values" in refused({"type": "and", "filters": [at_most] * 5}).message


def test_too_many_comparisons_are_refused() -> None:
    assert parse_filter({"type": "or", "filters": [EQ] * MAX_COMPARISONS}) is not None
    assert "257" in refused({"type": "or", "filters": [EQ] * (MAX_COMPARISONS + 1)}).message
    halves = {"type": "and", "filters": [EQ] * (MAX_COMPARISONS // 2)}
    assert "256 comparisons" in refused({"type": "or", "filters": [halves] * 3}).message


def test_too_much_text_is_refused() -> None:
    texts = {"type": "in", "key": "a", "value": ["x" * MAX_TEXT] * 100}
    assert str(MAX_CHARACTERS) in refused(texts).message


class Unwalked(str):
    """A text that is not looked at character by character in Python."""

    __slots__ = ()

    def __iter__(self) -> Any:
        raise AssertionError("each character is looked at")


@pytest.mark.parametrize("text", ["x" * MAX_TEXT, "ü" * MAX_TEXT])
def test_nothing_of_a_filter_is_read_beyond_a_limit(text: str) -> None:
    assert parse_filter({"type": "in", "key": "a", "value": [Unwalked(text)] * 16}) is not None
    # What is wrong here would be refused by its place, if it were read.
    wrong = {"type": "in", "key": "a", "value": ["\ud800"]}
    long = {"type": "in", "key": "a", "value": [Unwalked(text)] * 16}
    for body, told in (
        ([long] * 4 + [wrong], str(MAX_CHARACTERS)),
        ([{"type": "in", "key": "a", "value": [1] * MAX_LIST}] * 5 + [wrong], str(MAX_VALUES)),
        ([{"type": "and", "filters": [EQ] * 129}] * 2 + [wrong], str(MAX_COMPARISONS)),
    ):
        error = refused({"type": "and", "filters": body})
        assert (error.param, told in error.message) == ("filter", True)


def test_nesting_is_bounded_and_never_a_recursion_error() -> None:
    def nested(depth: int) -> dict[str, Any]:
        body: dict[str, Any] = EQ
        for _ in range(depth - 1):
            body = {"type": "and", "filters": [body]}
        return body

    assert parse_filter(nested(MAX_DEPTH)) is not None
    for depth in (MAX_DEPTH + 1, 1000, 100_000):
        error = refused(nested(depth))
        assert error.param == "filter" + ".filters.0" * MAX_DEPTH
        assert "16 deep" in error.message


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["type", "key", "value", "filters", "x"]), inner | st.sampled_from([*Op]),
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_whatever_comes_is_a_filter_or_one_clear_error(body: Any) -> None:
    try:
        parsed = parse_filter(body)
    except ApiError as error:
        told = (error.status, error.code)
    else:
        if parsed is not None:
            assert hash(parsed) == hash(parse_filter(body))
            assert matches(parsed, {"x": 1, "type": ["eq"]}) in (True, False)
        told = (422, "bad_filter")
    assert told == (422, "bad_filter")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2026-01-31", "2026-01-31T00:00:00Z"),
        ("2026-01-31T10:00", "2026-01-31 12:00:00.000000+02:00"),
        ("2026-01-31T10:00:00Z", "2026-01-31T11:30+0130"),
        ("2026-01-31T10:00:00.5-05", "2026-01-31T15:00:00.500000000Z"),
    ],
)
def test_dates_are_moments(one: str, other: str) -> None:
    assert instant(one) == instant(other) is not None


@pytest.mark.parametrize(
    "text",
    [
        "", "2026", "2026-01", "20260131", "2026-W05-6", "2026-13-01", "2026-02-30",
        "2026-01-31T25:00", "2026-01-31T10", "2026-01-31x10:00", "2026-01-31T10:00+25:00",
        " 2026-01-31", "2026-01-31\n", "\u0662\u0660\u0662\u0666-01-31",
        "10:00", "2026-01-31T10:00:60Z",
    ],
)  # fmt: skip
def test_what_is_no_date_is_none(text: str) -> None:
    assert instant(text) is None


def test_dates_keep_their_order_to_the_ends_of_time() -> None:
    dates = [
        "0001-01-01T00:00+14:00", "0001-01-01", "1969-12-31T23:59:59.999999Z", "1970-01-01",
        "2026-01-31T23:59+14:00", "2026-01-31T10:00:00.000001Z", "9999-12-31T23:59:59-14:00",
    ]  # fmt: skip
    moments = [instant(date) for date in dates]
    assert None not in moments
    assert moments == sorted(moments, key=lambda moment: moment or 0)
    assert instant("1970-01-01") == 0


def test_every_scope_but_everything_restricts_something() -> None:
    assert Scope() == EVERYTHING
    assert Scope(readers=frozenset()) != EVERYTHING
    assert not Scope(readers=frozenset({"hr"})).sees({}, ())
