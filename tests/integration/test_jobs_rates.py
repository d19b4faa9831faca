"""What is said of a job's speed, and for how long something has been as it is."""

import pytest

from services.retrieve.jobs.attend import Patience
from services.retrieve.jobs.model import UNKNOWN
from services.retrieve.jobs.rates import Window
from services.retrieve.jobs.stillness import Stillness
from shared.errors import ApiError


def test_rates_are_those_of_the_last_half_minute() -> None:
    window = Window(100.0)
    assert window.rates(100.1, 10, None) == UNKNOWN
    for second in range(1, 121):
        window.add(100.0 + second, 10 if second <= 60 else 1, 1000)
    rates = window.rates(220.0, 30, None)
    assert rates.documents_per_s == pytest.approx(1.0)
    assert rates.bytes_per_s == pytest.approx(1000.0)
    assert rates.seconds_left == pytest.approx(30.0)
    assert window.rates(220.0, 30, 5000).seconds_left == pytest.approx(5.0)
    assert window.rates(220.0, None, None).seconds_left is None
    assert window.rates(220.0, -3, None).seconds_left == 0.0


def test_a_batch_that_takes_longer_than_that_counts_over_its_time() -> None:
    window = Window(0.0)
    window.add(100.0, 50, 0)
    window.add(200.0, 50, 0)
    assert window.rates(200.0, 100, None).documents_per_s == pytest.approx(0.5)


def test_stillness_counts_from_when_a_thing_was_first_seen_as_it_is() -> None:
    seen = Stillness(5.0)
    assert seen.seconds(10.0, {1: "a", 2: "b"}) == {1: 0.0, 2: 0.0}
    assert seen.seconds(13.0, {1: "a", 2: "c"}) == {1: 3.0, 2: 0.0}
    assert seen.seconds(14.0, {2: "c"}) == {2: 1.0}
    assert seen.seconds(20.0, {1: "a"}) == {1: 0.0}


def test_time_in_which_nobody_could_look_does_not_make_a_thing_still() -> None:
    seen = Stillness(1.5)
    assert seen.seconds(10.0, {1: "a"}) == {1: 0.0}
    assert seen.seconds(90.0, {1: "a"}) == {1: 1.5}
    assert seen.seconds(91.0, {1: "a"}) == {1: 2.5}


def test_a_wait_is_random_below_a_bound_that_doubles_and_above_what_is_asked() -> None:
    patience = Patience()
    for tries, most in ((1, 1.0), (3, 4.0), (10, 60.0), (10_000, 60.0)):
        waits = [patience.wait_s(tries, None) for _ in range(200)]
        assert 0 <= min(waits) < most / 4
        assert most / 2 < max(waits) <= most
    asked = ApiError(503, "busy", "busy", headers={"Retry-After": "90"})
    assert patience.wait_s(1, asked) == 90
    for_ever = ApiError(503, "busy", "busy", headers={"Retry-After": "999999"})
    assert patience.wait_s(1, for_ever) == 600
    for odd in ("nan", "inf", "-5", "rubbish"):
        wait = patience.wait_s(1, ApiError(503, "busy", "busy", headers={"Retry-After": odd}))
        assert 0 <= wait <= 600
