"""How fast a job goes: what it did in the last half minute, by a clock that only goes forward."""

from collections import deque

from services.retrieve.jobs.model import Rates

WINDOW_S = 30.0
_LEAST_S = 0.5  # less than that says nothing about a rate


class Window:
    """What was done when, of one attempt at a job. Times are seconds of a monotonic clock."""

    def __init__(self, started: float) -> None:
        self._marks: deque[tuple[float, int, int]] = deque([(started, 0, 0)])

    def add(self, now: float, documents: int, size: int) -> None:
        """Note that so many documents and bytes more are done. A batch that took longer than the
        window counts over all of its time."""
        _, all_documents, all_bytes = self._marks[-1]
        self._marks.append((now, all_documents + documents, all_bytes + size))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW_S:
            self._marks.popleft()

    def rates(self, now: float, documents_left: int | None, bytes_left: int | None) -> Rates:
        """The rates up to `now`, and the seconds that what is left takes at them."""
        since, documents, size = self._marks[0]
        seconds = now - since
        if seconds < _LEAST_S:
            return Rates()
        by_document = (self._marks[-1][1] - documents) / seconds
        by_byte = (self._marks[-1][2] - size) / seconds
        # Bytes say more: a document may be a line or a book.
        for left, rate in ((bytes_left, by_byte), (documents_left, by_document)):
            if left is not None and rate > 0:
                return Rates(by_document, by_byte, max(0, left) / rate)
        return Rates(by_document, by_byte)
