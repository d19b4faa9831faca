"""Recorded outcomes: for each question whether a weak and a strong writer answered it rightly."""

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, StrictBool, ValidationError, field_validator

from services.generate.routing.learned.features import canonical

# Near-duplicates: questions of which one shares this part of its runs of five words with the other.
_RUN = 5
_SHARED = 0.3
# A run that so many questions have is a phrase of the language or of the form, and tells nothing.
_COMMON = 200


class OutcomesError(Exception):
    """A file of outcomes that can't be used: one sentence that says where and why."""


class RecordedOutcome(BaseModel):
    """One line of the file. Other fields, such as a subject that no user tells, are not read."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    text: str
    weak_correct: StrictBool
    strong_correct: StrictBool

    @field_validator("text")
    @classmethod
    def _says_something(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("is blank")
        return value


@dataclass(frozen=True)
class Outcomes:
    """Outcomes as columns, all of n rows.

    texts: canonical. characters: of the questions as they were asked. weak, strong: 1.0 where that
    writer was right, float64 [n].
    """

    texts: tuple[str, ...]
    characters: NDArray[np.float64]
    weak: NDArray[np.float64]
    strong: NDArray[np.float64]

    @property
    def gain(self) -> NDArray[np.float64]:
        """What asking the strong writer brings: 1.0, 0.0 or -1.0 right answers, float64 [n]."""
        return self.strong - self.weak

    def rows(self, chosen: NDArray[np.intp]) -> "Outcomes":
        """Those in the chosen places."""
        texts = tuple(self.texts[place] for place in chosen)
        return Outcomes(texts, self.characters[chosen], self.weak[chosen], self.strong[chosen])


def columns(rows: list[RecordedOutcome]) -> Outcomes:
    """Outcomes as columns."""
    return Outcomes(
        tuple(canonical(row.text) for row in rows),
        np.array([len(row.text) for row in rows], np.float64),
        np.array([row.weak_correct for row in rows], np.float64),
        np.array([row.strong_correct for row in rows], np.float64),
    )


def read_outcomes(path: Path) -> Outcomes:
    """The outcomes in a file of JSON lines; blank lines are passed over.

    Raises OutcomesError for a line that is no outcome and for a file without any, OSError where the
    file can't be read.
    """
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                rows.append(RecordedOutcome.model_validate_json(line))
            except ValidationError as error:
                fault = error.errors()[0]
                where = "".join(f"{part}: " for part in fault["loc"])
                words = fault["msg"].removeprefix("Value error, ")
                raise OutcomesError(f"{path} line {number}: {where}{words}") from None
    if not rows:
        raise OutcomesError(f"{path} has no outcomes")
    return columns(rows)


def near_duplicates(texts: tuple[str, ...]) -> NDArray[np.intp]:
    """The group of each canonical text, intp [n]: near-duplicates, and theirs, are of one group.

    Questions about one passage, or cut to one pattern, share long runs of words: to know the answer
    to one is to know something of the others.
    """
    runs = [_runs(text) for text in texts]
    having: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, own in enumerate(runs):
        for run in own:
            having[run].append(place)
    shared: dict[tuple[int, int], int] = defaultdict(int)
    for places in having.values():
        if len(places) <= _COMMON:
            for later, one in enumerate(places):
                for other in places[:later]:
                    shared[other, one] += 1
    parent = list(range(len(texts)))

    def root(place: int) -> int:
        while parent[place] != place:
            parent[place] = parent[parent[place]]
            place = parent[place]
        return place

    for (one, other), count in shared.items():
        if count >= _SHARED * min(len(runs[one]), len(runs[other])):
            parent[root(other)] = root(one)
    return np.array([root(place) for place in range(len(texts))], np.intp)


def _runs(text: str) -> frozenset[tuple[str, ...]]:
    words = "".join(one if one.isalnum() else " " for one in text).split()
    last = max(1, len(words) - _RUN + 1)
    return frozenset(tuple(words[start : start + _RUN]) for start in range(last))


def deal(groups: NDArray[np.intp], folds: int, seed: int) -> NDArray[np.intp]:
    """The fold, 0..folds-1, of each question: whole groups, in folds as even as they go, intp [n].

    The largest groups are dealt first, those of one size in an order of chance by `seed`. Raises
    OutcomesError where there are fewer groups than folds.
    """
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(sizes) < folds:
        raise OutcomesError(
            f"{folds} folds need as many questions that are not alike; there are {len(sizes)}"
        )
    order = np.random.default_rng(seed).permutation(len(sizes))
    fold_of = np.zeros(len(sizes), np.intp)
    filled = np.zeros(folds, np.intp)
    for one in order[np.argsort(-sizes[order], kind="stable")]:
        fold_of[one] = filled.argmin()
        filled[fold_of[one]] += sizes[one]
    return fold_of[group]
