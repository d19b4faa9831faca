"""What of a draft may be shown while it is written: all but what could be a refusal or a leak.

Once a character was shown it stays: nothing takes its place, whatever verification finds.
"""

from collections.abc import Callable, Sequence

from services.generate.prompting.prompt import may_decline, shows
from shared.errors import ApiError


class Showing:
    """Passes a draft's pieces on as they come.

    sink: gets what is to be shown. secrets: strings of the prompt that must not show in any case.
    The agreed refusal is held back while the text could be it, and white space until more follows,
    so that what was shown in all is the draft's text, stripped.
    """

    def __init__(self, sink: Callable[[str], None], secrets: Sequence[str]) -> None:
        self._sink = sink
        self._secrets = [secret.lower() for secret in secrets]
        self._written = ""
        self._shown = 0

    @property
    def begun(self) -> bool:
        """Whether a reader has seen some of it."""
        return self._shown > 0

    @property
    def text(self) -> str:
        """What was shown."""
        return self._written[: self._shown]

    def feed(self, piece: str) -> None:
        """Show what can be shown by now. Raises ApiError 502 `leak` for a draft with a secret."""
        self._written = (
            (self._written + piece).lstrip() if not self._shown else (self._written + piece)
        )
        if shows(self._written, self._secrets):
            raise ApiError(502, "leak", "the writer repeated a part of its prompt; it was stopped")
        if not self._shown and may_decline(self._written):
            return
        self._show(len(self._written.rstrip()) - self._held())

    def close(self) -> None:
        """The draft is whole and is no refusal: show what was held back of it."""
        self._show(len(self._written.rstrip()))

    def _held(self) -> int:
        """How many of the last characters could be the beginning of a secret."""
        ends = self._written.rstrip().lower()
        return max(
            (
                size
                for secret in self._secrets
                for size in range(1, len(secret))
                if ends.endswith(secret[:size])
            ),
            default=0,
        )

    def _show(self, end: int) -> None:
        if end > self._shown:
            piece, self._shown = self._written[self._shown : end], end
            self._sink(piece)
