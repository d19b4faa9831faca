"""Recency: what a date can do to a ranking, and what it cannot."""

from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.retrieve.search.candidates import Arm, ChunkKey
from services.retrieve.search.curate import curated
from services.retrieve.search.fusion import Fused
from services.retrieve.search.recency import (
    Z_PER_SHARE,
    RecencySettings,
    age_days,
    asks_for_recent,
    bonus,
    lift,
    within_lift,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WRITTEN = NOW - timedelta(days=10)

ages = st.none() | st.floats(0, 20_000)
candidates = st.lists(st.tuples(st.floats(0, 1), ages), min_size=1, max_size=30)
recencies = st.builds(RecencySettings, st.floats(0.1, 36_500), st.floats(0.001, 1))


def of_c(half_life_days: float, weight: float) -> dict[str, RecencySettings]:
    return {"c": RecencySettings(half_life_days, weight)}


def key(number: int) -> ChunkKey:
    return ChunkKey("c", number)


def fused_list(*scores: float) -> list[Fused]:
    return [
        Fused(key(number), score, {Arm.BM25: score / 2, Arm.DENSE: score / 2})
        for number, score in enumerate(scores)
    ]


def test_a_bonus_is_halved_after_a_half_life_and_none_without_a_date() -> None:
    settings = of_c(30, 0.2)
    added = bonus({key(1): 30.0, key(2): None, key(3): 0.0, key(4): 60.0}, settings)
    assert added == {key(3): 1.0, key(1): 0.5, key(4): 0.25}


def test_a_young_document_passes_an_old_one_that_is_little_better() -> None:
    fused = fused_list(0.9, 0.85, 0.7)
    lifted = lift(fused, {key(0): 9999.0, key(1): 0.0, key(2): 0.0}, of_c(30, 0.1))
    assert [one.key.key for one in lifted] == [1, 0, 2]


def test_the_parts_and_the_recency_sum_to_the_score() -> None:
    lifted = lift(fused_list(0.8, 0.4), {key(0): 30.0}, of_c(30, 0.25))
    for one in lifted:
        assert sum(one.parts.values()) + one.recency == pytest.approx(one.score)
    assert lifted[0].recency == pytest.approx(0.25 * 0.5 / 1.25)
    assert lifted[1].recency == 0.0


def test_what_is_first_for_every_arm_and_of_today_has_the_score_one() -> None:
    lifted = lift(fused_list(1.0), {key(0): 0.0}, of_c(30, 0.3))
    assert lifted[0].score == pytest.approx(1)


def test_undated_documents_keep_their_order_and_their_distances() -> None:
    fused = fused_list(0.9, 0.8, 0.7)
    lifted = lift(fused, {key(1): None}, of_c(30, 0.5))
    assert [one.key.key for one in lifted] == [0, 1, 2]
    assert [one.score for one in lifted] == pytest.approx([0.6, 0.8 / 1.5, 0.7 / 1.5])


@given(candidates, recencies)
def test_a_lift_never_passes_a_candidate_that_was_better_by_the_weight(
    found: list[tuple[float, float | None]], settings: RecencySettings
) -> None:
    found.sort(key=lambda one: -one[0])
    before = fused_list(*(score for score, _ in found))
    lifted = lift(before, {key(n): age for n, (_, age) in enumerate(found)}, {"c": settings})
    assert sorted(one.key for one in lifted) == sorted(one.key for one in before)
    scores = [one.score for one in lifted]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
    place = {one.key: n for n, one in enumerate(lifted)}
    for better, worse in combinations(before, 2):
        if place[worse.key] < place[better.key]:
            assert better.score - worse.score < settings.weight + 1e-12
            # It was younger: nothing without a date passes anything.
            assert found[worse.key.key][1] is not None


@given(candidates, recencies, st.integers(1, 30))
def test_what_no_lift_can_bring_up_need_not_be_dated(
    found: list[tuple[float, float | None]], settings: RecencySettings, places: int
) -> None:
    found.sort(key=lambda one: -one[0])
    before = fused_list(*(score for score, _ in found))
    ages_days = {key(n): age for n, (_, age) in enumerate(found)}
    near = before[: within_lift(before, places, {"c": settings})]
    assert len(near) >= min(places, len(before))
    some = lift(before, {one.key: ages_days[one.key] for one in near}, {"c": settings})
    assert some[:places] == lift(before, ages_days, {"c": settings})[:places]


def test_of_several_corpora_each_goes_by_its_own_dates_and_one_without_by_none() -> None:
    first, second, third = ChunkKey("news", 1), ChunkKey("laws", 1), ChunkKey("old", 1)
    fused = [Fused(key, 0.5, {Arm.BM25: 0.5}) for key in (third, second, first)]
    today = dict.fromkeys((first, second, third), 0.0)
    settings = {"news": RecencySettings(10, 0.4), "laws": RecencySettings(1000, 0.2)}
    lifted = lift(fused, today, settings)
    assert [one.key for one in lifted] == [first, second, third]
    assert [one.score for one in lifted] == pytest.approx([0.9 / 1.4, 0.7 / 1.4, 0.5 / 1.4])
    assert bonus(today, settings) == {first: Z_PER_SHARE * 0.4, second: Z_PER_SHARE * 0.2}


def test_few_are_dated_where_the_bound_is_small() -> None:
    fused = fused_list(*(61 / (60 + n) for n in range(1, 1001)))
    assert within_lift(fused, 50, of_c(30, 0.05)) == 60
    assert within_lift(fused, 50, of_c(30, 1)) == 1000
    assert within_lift(fused[:20], 50, of_c(30, 0.05)) == 20


@given(candidates, recencies)
def test_a_bonus_in_the_window_never_passes_a_blend_that_was_better_by_its_bound(
    found: list[tuple[float, float | None]], settings: RecencySettings
) -> None:
    relevance = {key(n): 0.01 + 0.98 * score for n, (score, _) in enumerate(found)}
    ages_days = {key(n): age for n, (_, age) in enumerate(found)}
    before = fused_list(*(0.9 - n / 100 for n in range(len(found))))
    plain = {
        one.key: one.curation.blended for one in curated(before, relevance, {}) if one.curation
    }
    ranked = curated(before, relevance, {}, bonus(ages_days, {"c": settings}))
    scores = [one.score for one in ranked]
    assert scores == sorted(scores, reverse=True)
    for first, second in combinations(ranked, 2):
        if plain[second.key] > plain[first.key]:
            assert plain[second.key] - plain[first.key] <= Z_PER_SHARE * settings.weight + 1e-9
            assert ages_days[first.key] is not None
    for one in ranked:
        assert one.curation is not None
        assert 0 <= one.curation.recency <= settings.most_z
        assert one.curation.blended == pytest.approx(plain[one.key] + one.curation.recency)


@pytest.mark.parametrize(
    ("value", "days"),
    [
        ("2026-02-27", 2.5),
        ("2026-02-28T12:00:00", 1.0),
        ("2026-02-28T14:00:00+02:00", 1.0),
        ("2026-02-28T12:00:00Z", 1.0),
        (int(NOW.timestamp()) - 86_400, 1.0),
        (NOW.timestamp() - 43_200.0, 0.5),
        (int((NOW.timestamp() - 86_400) * 1000), 1.0),
        ("2999-01-01", 0.0),
        ("last week", None),
        ("", None),
        ("9999999999999999999999-01-01", None),
        ("0001-01-01T00:00:00+14:00", None),
        (True, None),
        (float("inf"), None),
        (["2026-02-27"], None),
        (None, None),
    ],
)
def test_the_age_is_read_from_a_date_a_time_or_a_count_of_seconds(
    value: str | float | list[str] | None, days: float | None
) -> None:
    metadata = {} if value is None else {"published": value}
    age = age_days(metadata, "published", WRITTEN, NOW)
    # Some dates at the end of the calendar are dates in one place and none in another.
    if value == "0001-01-01T00:00:00+14:00":
        assert age is None or age > 700_000
    else:
        assert age == (None if days is None else pytest.approx(days))


def test_without_a_field_it_is_when_the_document_was_last_written() -> None:
    assert age_days({"published": "2020-01-01"}, None, WRITTEN, NOW) == pytest.approx(10)


@given(st.text(max_size=40) | st.integers(-(2**63), 2**63 - 1) | st.floats())
def test_no_metadata_value_is_too_odd_to_be_read(value: str | float) -> None:
    age = age_days({"d": value}, "d", WRITTEN, NOW)
    assert age is None or age >= 0


@pytest.mark.parametrize(
    ("language", "query"),
    [
        ("en", "What is the LATEST release?"),
        ("en", "changes this   week"),
        ("en", "what's new in the handbook"),
        ("de", "Was ist die aktuelle Urlaubsregelung?"),
        ("de", "neueste Version"),
        ("de", "Änderungen seit letzter Woche heute"),
        ("fr", "les dernières nouvelles"),
        ("fr", "changements recents"),
        ("es", "cambios más recientes"),
        ("it", "novità di oggi"),
        ("pt", "alterações de hoje"),
        ("nl", "het nieuwste beleid"),
        ("sv", "senaste nytt"),
        ("da", "den nyeste udgave"),
        ("no", "hva skjedde i går"),
        ("fi", "uusin ohje"),
        ("hu", "a legújabb kiadás"),
        ("ru", "последние новости"),
        ("ja", "最新のリリースは何ですか"),
        ("zh", "最近的变化"),
        ("ko", "오늘 공지"),
    ],
)
def test_words_of_many_languages_ask_for_something_recent(language: str, query: str) -> None:
    assert asks_for_recent(query, language)


@pytest.mark.parametrize(
    ("language", "query"),
    [
        ("en", "how long is the notice period"),
        ("en", "electric current in a new circuit"),
        ("en", "must be returned on Friday at the latest"),
        ("en", "recentness"),
        ("de", "der neue Mitarbeiter"),
        ("xx", "latest"),
        ("en", ""),
    ],
)
def test_other_words_do_not(language: str, query: str) -> None:
    assert not asks_for_recent(query, language)
