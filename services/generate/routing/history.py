"""How well each tier's drafts have stood verification lately, by kind of question.

A question's kind is what it wants and what it asks for: questions of one kind are the similar ones.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from services.generate.reading.question import AnswerKind, Intent, QuestionFeatures

# What a tier is believed to succeed in before anything was seen of it: as if of so many drafts that
# share had passed (the mean of a beta distribution). A few failures at first prove nothing.
UNKNOWN_SUCCESS = 0.8
_PRIOR_DRAFTS = 10
_WINDOW = 200  # drafts of a tier for a kind of question that are remembered

QuestionKind = tuple[Intent, AnswerKind]


@dataclass(frozen=True)
class Verified:
    """A tier's draft that was verified."""

    tier: str
    passed: bool


def kind_of(question: QuestionFeatures) -> QuestionKind:
    """The kind of a question."""
    return question.intent, question.asks_for


class _Window:
    """The last drafts of a tier for a kind of question. passed: how many of them did."""

    def __init__(self) -> None:
        self.drafts: deque[bool] = deque(maxlen=_WINDOW)
        self.passed = 0

    def add(self, passed: bool) -> None:
        if len(self.drafts) == _WINDOW:
            self.passed -= self.drafts[0]
        self.drafts.append(passed)
        self.passed += passed


class History:
    """The last drafts of each tier, by kind. For one event loop."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[QuestionKind, _Window]] = {}

    def note(self, kind: QuestionKind, drafts: Iterable[Verified]) -> None:
        """Remember what became of drafts for a question of this kind, the latest last."""
        for one in drafts:
            self._seen.setdefault(one.tier, {}).setdefault(kind, _Window()).add(one.passed)

    def success(self, kind: QuestionKind) -> dict[str, float]:
        """Of each tier that was seen, how likely its draft for such a question passes, 0..1.

        The mean of a beta distribution, whose prior is what the tier does with questions of all
        kinds, whose prior is `UNKNOWN_SUCCESS`.
        """
        found = {}
        for tier, kinds in self._seen.items():
            overall = _shrunk(kinds.values(), UNKNOWN_SUCCESS)
            own = [kinds[kind]] if kind in kinds else []
            found[tier] = round(_shrunk(own, overall), 4)
        return found


def _shrunk(windows: Collection[_Window], prior: float) -> float:
    passed = sum(one.passed for one in windows)
    drafts = sum(len(one.drafts) for one in windows)
    return (passed + _PRIOR_DRAFTS * prior) / (drafts + _PRIOR_DRAFTS)
