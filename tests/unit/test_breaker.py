"""The breaker, the budget of retries and the pause before one, without a clock or dice."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.generate.tiers.breaker import Breaker, Door, Health, Limits, Pass
from services.generate.tiers.retries import RetryBudget, pause_s

LIMITS = Limits(window_s=30, minimum=5, rate=0.5, pause_s=10, longest_rest_s=60)
GOOD, BAD, UNKNOWN = Health.GOOD, Health.BAD, Health.UNKNOWN


def tried(breaker: Breaker, health: Health, now: float) -> None:
    """One try that begins and ends at `now`."""
    admitted = breaker.admit(now)
    assert admitted is not None
    breaker.settle(admitted, health, now)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(LIMITS)
    for _ in range(LIMITS.minimum):
        tried(breaker, BAD, now)
    assert breaker.door(now) is Door.OPEN
    return breaker


def test_it_stays_closed_below_the_minimum_of_tries_and_below_the_rate() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(LIMITS.minimum - 1):
        tried(breaker, BAD, 0)
    assert breaker.door(0) is Door.CLOSED
    for _ in range(20):
        tried(breaker, GOOD, 1)
    for _ in range(15):  # 19 of 39
        tried(breaker, BAD, 2)
    assert breaker.door(2) is Door.CLOSED
    tried(breaker, BAD, 3)
    assert breaker.door(3) is Door.OPEN


def test_failures_count_for_the_window_alone() -> None:
    breaker = Breaker(LIMITS)
    for now in range(0, 300, 10):  # three are in the window at any time
        tried(breaker, BAD, now)
    assert breaker.door(300) is Door.CLOSED


def test_what_says_nothing_about_the_server_does_not_count() -> None:
    breaker = Breaker(LIMITS)
    for _ in range(100):
        tried(breaker, UNKNOWN, 0)
    for _ in range(LIMITS.minimum - 1):
        tried(breaker, BAD, 0)
    assert breaker.door(0) is Door.CLOSED


def test_open_it_lets_nobody_through_until_its_pause_is_over() -> None:
    breaker = opened()
    assert breaker.admit(9.9) is None
    assert breaker.wait_s(4) == 6
    assert breaker.door(10) is Door.HALF_OPEN
    assert breaker.admit(10) == Pass(1, probe=True)
    assert breaker.admit(1000) is None  # as long as the probe is under way


def test_a_probe_that_succeeds_closes_it_and_one_that_fails_opens_it_anew() -> None:
    breaker = opened()
    tried(breaker, BAD, 10)
    assert (breaker.door(19.9), breaker.door(20)) == (Door.OPEN, Door.HALF_OPEN)
    tried(breaker, GOOD, 20)
    assert breaker.door(20) is Door.CLOSED
    for _ in range(LIMITS.minimum - 1):  # it begins anew
        tried(breaker, BAD, 21)
    assert breaker.door(21) is Door.CLOSED


def test_a_probe_that_says_nothing_gives_the_next_one_its_turn() -> None:
    breaker = opened()
    tried(breaker, UNKNOWN, 10)
    assert breaker.door(10) is Door.HALF_OPEN
    tried(breaker, GOOD, 10)
    assert breaker.door(10) is Door.CLOSED


@pytest.mark.parametrize("late", [GOOD, BAD, UNKNOWN])
def test_a_try_that_began_before_it_opened_changes_nothing_after(late: Health) -> None:
    breaker = Breaker(LIMITS)
    early = breaker.admit(0)
    assert early is not None
    for _ in range(LIMITS.minimum):
        tried(breaker, BAD, 0)
    probe = breaker.admit(10)
    assert probe is not None
    breaker.settle(early, late, 10)
    assert breaker.admit(10) is None  # the probe is still under way
    assert breaker.settle(probe, GOOD, 10) is True
    assert breaker.door(10) is Door.CLOSED


def test_a_rest_that_was_asked_for_is_kept_within_bounds_and_is_no_failure() -> None:
    breaker = Breaker(LIMITS)
    breaker.rest(5, now=0)
    breaker.rest(1, now=1)  # an earlier end changes nothing
    assert breaker.admit(4.9) is None
    assert breaker.door(4.9) is Door.RESTING
    assert breaker.admit(5) == Pass(0, probe=False)
    breaker.rest(10**9, now=5)
    assert breaker.wait_s(5) == LIMITS.longest_rest_s
    assert not breaker.opened


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["admit", *Health]),
        st.floats(0, 20, allow_nan=False),
        st.integers(0, 5),
    ),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_there_is_never_more_than_one_probe(events: list[tuple[str, float, int]]) -> None:
    breaker, now = Breaker(LIMITS), 0.0
    under_way: list[Pass] = []
    for what, pause, which in events:
        now += pause
        if what == "admit":
            door = breaker.door(now)
            admitted = breaker.admit(now)
            if admitted is not None:
                assert door in (Door.CLOSED, Door.HALF_OPEN)
                assert admitted.probe == (door is Door.HALF_OPEN)
                under_way.append(admitted)
        elif under_way:
            breaker.settle(under_way.pop(which % len(under_way)), Health(what), now)
        probes = [one for one in under_way if one.probe]
        assert len(probes) <= 1
        if probes:
            assert breaker.opened


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), max_size=1000))
def test_retries_are_a_tenth_of_the_traffic_and_a_few_at_most(wanted: list[bool]) -> None:
    budget = RetryBudget()
    allowed: list[bool] = []
    for want in wanted:
        budget.request()
        allowed.append(want and budget.retry())
    for begin in range(0, len(allowed), 50):  # of the whole, and of any part of it
        part = allowed[begin:]
        assert sum(part) <= len(part) / 10 + 10
    assert sum(allowed) <= len(allowed) / 10 + 3


def test_a_quiet_time_earns_ten_retries_at_most() -> None:
    budget = RetryBudget()
    for _ in range(10_000):
        budget.request()
    assert [budget.retry() for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.parametrize(
    ("asked", "remaining", "dice", "expected"),
    [
        (0.0, 60, 0.0, 0.0),  # full jitter: from nothing at all
        (0.0, 60, 1.0, 0.2),
        (1.0, 60, 0.5, 1.1),  # never sooner than was asked for
        (2.1, 60, 0.0, None),  # another model writes sooner
        (1.0, 1.0, 0.0, None),  # nobody waits any more
        (0.0, float("inf"), 0.5, 0.1),
    ],
)
def test_the_pause_before_a_retry(
    asked: float, remaining: float, dice: float, expected: float | None
) -> None:
    assert pause_s(asked, remaining, dice) == expected
