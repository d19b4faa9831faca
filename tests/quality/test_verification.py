"""Verification catches what was made untrue and lets pass what was only said otherwise."""

from pathlib import Path

import pytest

from services.generate.verification.checks.profile import LIGHT, STRICT, Profile
from services.generate.verification.verify import verify
from tests.quality.corruptions import Case, articles, cases, measure, total


def _made(datasets: Path, count: int) -> list[Case]:
    folder = datasets / "squad-v2-dev"
    return [case for article in articles(folder, reported=True) for case in cases(article, count)]


def _check(made: list[Case], profile: Profile) -> tuple[float, float]:
    """Shares of untrue and of true ones that fail."""
    rates, _ = measure(
        made, lambda one: verify(one.draft, one.passages, question=one.question, profile=profile)
    )
    return total(rates, made, true=False).share, total(rates, made, true=True).share


@pytest.mark.parametrize("count", [3, pytest.param(40, marks=pytest.mark.long)])
def test_untrue_sentences_are_caught_and_true_ones_pass(datasets: Path, count: int) -> None:
    caught, false_alarms = _check(_made(datasets, count), STRICT)
    assert caught >= 0.9
    assert false_alarms <= 0.1


def test_the_same_cases_come_out_of_the_same_collection(datasets: Path) -> None:
    assert _made(datasets, 1) == _made(datasets, 1)


def test_the_light_profile_fails_next_to_nothing_that_is_true(datasets: Path) -> None:
    made = [case for case in _made(datasets, 2) if case.true or case.kind in {"number", "date"}]
    caught, false_alarms = _check(made, LIGHT)
    assert caught >= 0.7
    assert false_alarms <= 0.05
