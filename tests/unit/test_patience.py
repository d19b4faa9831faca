"""The command line waits for a service that is being started again, and for no other fault."""

import pytest

from shared.cli import patience
from shared.cli.failures import BrokenOffError, CliError, RefusedError, UnreachableError
from shared.cli.patience import patiently

AWAY = [UnreachableError("nobody"), BrokenOffError("cut"), RefusedError("busy", 503, "x", None)]


def test_it_is_asked_until_the_service_is_back() -> None:
    faults: list[Exception] = list(AWAY)
    said: list[str] = []
    paused: list[float] = []

    def call() -> str:
        if faults:
            raise faults.pop(0)
        return "answer"

    assert patiently(call, said.append, paused.append) == "answer"
    assert said == ["nobody; waiting for it", "cut; waiting for it", "busy; waiting for it"]
    assert len(paused) == len(AWAY)


@pytest.mark.parametrize("fault", [CliError("slow"), RefusedError("no", 404, "x", None)])
def test_what_waiting_does_not_mend_is_raised_at_once(fault: CliError) -> None:
    def call() -> None:
        raise fault

    with pytest.raises(CliError) as raised:
        patiently(call, lambda _: None)
    assert raised.value is fault


def test_the_same_is_said_once_and_again_after_something_else() -> None:
    faults = [AWAY[0], UnreachableError("nobody"), AWAY[1], AWAY[0]]
    said: list[str] = []

    def call() -> None:
        if faults:
            raise faults.pop(0)

    patiently(call, said.append, lambda _: None)
    assert said == [f"{word}; waiting for it" for word in ("nobody", "cut", "nobody")]


def test_the_time_counts_from_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])
    tries: list[float] = []

    def call() -> None:
        tries.append(now[0])
        now[0] += 50.0  # so long it hangs before it breaks off
        raise AWAY[1]

    with pytest.raises(BrokenOffError):
        patiently(call, lambda _: None, lambda _: None)
    assert tries == [1000.0, 1050.0, 1100.0]


def test_a_service_that_stays_away_is_given_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "AWAY_S", 0.0)

    def call() -> None:
        raise AWAY[0]

    with pytest.raises(UnreachableError):
        patiently(call, lambda _: None, lambda _: None)
