"""How long things have been as they are, by a clock that only goes forward."""

from collections.abc import Hashable, Mapping


class Stillness:
    """What was seen last, and since when it has looked the same."""

    def __init__(self) -> None:
        self._since: dict[int, tuple[Hashable, float]] = {}

    def seconds(self, now: float, seen: Mapping[int, Hashable]) -> dict[int, float]:
        """For how long each of `seen`, by its number, has been just so; 0.0 for what is new or
        changed. What is not seen any more is forgotten. now: seconds of a monotonic clock."""
        before, self._since = self._since, {}
        for number, state in seen.items():
            known = before.get(number)
            since = known[1] if known is not None and known[0] == state else now
            self._since[number] = (state, since)
        return {number: now - since for number, (_, since) in self._since.items()}
