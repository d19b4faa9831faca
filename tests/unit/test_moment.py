"""Moments on the wire."""

from datetime import UTC, datetime, timedelta, timezone

from pydantic import TypeAdapter

from shared.moment import Moment

WIRE = TypeAdapter(Moment)


def test_moments_sort_as_texts_and_come_back_as_they_were() -> None:
    whole = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
    moments = [whole + timedelta(microseconds=more) for more in (0, 1, 394_000, 999_999, 1_000_000)]
    texts = [WIRE.dump_json(one) for one in moments]
    assert texts[0] == b'"2026-03-01T12:00:00.000000Z"'
    assert sorted(texts) == texts
    assert [WIRE.validate_json(text) for text in texts] == moments


def test_a_moment_of_another_zone_is_written_in_utc() -> None:
    there = datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    assert WIRE.dump_json(there) == b'"2026-03-01T10:00:00.000000Z"'
