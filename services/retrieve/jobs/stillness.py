"""How long things have been as they are, by a clock that only goes forward."""

from collections.abc import Hashable, Mapping


class Stillness:
    """What was seen last, and for how long it has looked the same.

    most_s: what the time between two looks counts for at most. Who could not look for a while, as
    the database or its own process stood still, does not know what happened meanwhile.
    """

    def __init__(self, most_s: float) -> None:
        self._most_s = most_s
        self._looked = float("-inf")
        self._known: dict[int, tuple[Hashable, float]] = {}

    def seconds(self, now: float, seen: Mapping[int, Hashable]) -> dict[int, float]:
        """For how long each of `seen`, by its number, has been just so; 0.0 for what is new or
        changed. What is not seen any more is forgotten. now: seconds of a monotonic clock."""
        more = min(now - self._looked, self._most_s)
        before, self._known, self._looked = self._known, {}, now
        for number, state in seen.items():
            was, seconds = before.get(number, (None, 0.0))
            self._known[number] = (state, seconds + more if was == state else 0.0)
        return {number: seconds for number, (_, seconds) in self._known.items()}
