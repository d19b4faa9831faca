"""The learned router as a value and as a file. Pure but for reading and writing that file.

It is a logistic regression: the file holds a weight for each feature and none of the questions that
they were learned from, as plain JSON.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from services.generate.routing.learned.features import SURFACE, surface, terms
from services.generate.routing.learned.outcomes import OutcomesError
from shared.durable import atomic_write

_MAX_BYTES = 32 * 1024 * 1024  # a word takes some 60 bytes


class Lean(StrEnum):
    """Which writer a question needs. UNSURE: the router declines, and the rules decide."""

    WEAK = "weak"
    STRONG = "strong"
    UNSURE = "unsure"


@dataclass(frozen=True)
class Opinion:
    """What the router says of a question.

    gain: the probability that the strong writer answers it rightly and the weak one does not.
    leans: the side of the bar that it is on. choice: the same, or UNSURE within the margin.
    """

    gain: float
    leans: Lean
    choice: Lean


class Term(BaseModel):
    """A word that the router knows. rarity: how much it counts in a question."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rarity: Annotated[float, Field(gt=0)]
    weight: float


class RouterModel(BaseModel):
    """A learned router. All weights are of log-odds.

    embedder: the model whose unit vectors it reads, ``name@revision``. surface: by the name of each
    feature of `SURFACE`. vector: of each number of the vector. terms: by the CRC-32 of the word; a
    question's words, times their rarity, are brought to length 1. bar: log-odds from which a
    question is for the strong writer. margin: this near to the bar it declines. share: of the
    questions it was trained on those at or above the bar. questions: how many those were.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    format: Literal["refdesk-router-1"] = "refdesk-router-1"
    embedder: Annotated[str, Field(min_length=1)]
    questions: Annotated[int, Field(ge=1)]
    share: Annotated[float, Field(gt=0, lt=1)]
    bias: float
    bar: float
    margin: Annotated[float, Field(ge=0)]
    surface: dict[str, float]
    vector: Annotated[tuple[float, ...], Field(min_length=1)]
    terms: dict[int, Term]

    @model_validator(mode="after")
    def _has_the_features_of_this_version(self) -> Self:
        if set(self.surface) != set(SURFACE):
            raise ValueError("surface: has other features than this version reads")
        return self

    def log_odds(self, texts: Sequence[str], vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each question, from its canonical text and its unit vector, float64 [n]."""
        weights = np.array([self.surface[name] for name in SURFACE])
        of_terms = np.array([self._of_terms(text) for text in texts])
        odds: NDArray[np.float64] = self.bias + surfaces(texts) @ weights + of_terms
        odds += vectors @ np.array(self.vector)
        return odds

    def _of_terms(self, text: str) -> float:
        known = [
            (times * term.rarity, term.weight)
            for word, times in terms(text).items()
            if (term := self.terms.get(word))
        ]
        length = math.sqrt(sum(value**2 for value, _ in known))
        return sum(value * weight for value, weight in known) / length if known else 0.0

    def opinion(self, log_odds: float) -> Opinion:
        """What these log-odds mean."""
        leans = Lean.STRONG if log_odds >= self.bar else Lean.WEAK
        near = abs(log_odds - self.bar) < self.margin
        gain = float(0.5 + 0.5 * np.tanh(0.5 * log_odds))
        return Opinion(gain, leans, Lean.UNSURE if near else leans)


def surfaces(texts: Sequence[str]) -> NDArray[np.float64]:
    """The features of several canonical texts, float64 [n, len(SURFACE)]."""
    return np.stack([surface(text) for text in texts])


def read_router(path: Path) -> RouterModel:
    """The router in a file. Raises OutcomesError for a file that holds none, OSError as reading."""
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise OutcomesError(f"{path} has over {_MAX_BYTES} bytes: is it a learned router?")
    try:
        return RouterModel.model_validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        where = "".join(f"{part}: " for part in fault["loc"])
        words = fault["msg"].removeprefix("Value error, ")
        raise OutcomesError(
            f"{path} is no learned router ({where}{words}): train it again"
        ) from None


def write_router(path: Path, router: RouterModel) -> None:
    """Write a router; a reader sees the old file or the new one. Raises OSError."""
    atomic_write(path, router.model_dump_json(indent=1).encode() + b"\n", mode=0o644)
