"""Learning a router from outcomes. Pure functions; the same outcomes always give the same router.

Three logistic regressions for "only the strong writer is right", each with an L2 penalty, read the
surface features, the first principal components of the vectors, and the words. Their log-odds,
brought to the same spread, are weighed and added up, and the sum is calibrated (Platt,
Probabilistic Outputs for Support Vector Machines, 1999) on questions that they were not fitted to:
the outcomes are dealt into parts, near-duplicates together, and each part is judged by what was
fitted to the others. All of it is linear, so that the router is one weight for each thing it reads.
"""

import math
from collections.abc import Collection, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import minimize

from services.generate.routing.learned.features import SURFACE, terms
from services.generate.routing.learned.model import RouterModel, Term, surfaces
from services.generate.routing.learned.outcomes import Outcomes, OutcomesError, deal
from services.generate.routing.learned.vectors import Embedded

_PARTS = 5
_SEED = 7
_LEAST = 20  # of questions of each kind: fewer teach nothing
_SEEN = 3  # questions that a word must be in: a rarer one says little, and may be a name
# How strongly weights are held to 0: of features and components with a deviation of 1, and of
# words, which have a length of 1 in all.
_PENALTY, _WORDS_PENALTY = 300.0, 1.0
_LEAST_SPREAD = 0.1  # of log-odds: a view that sees less than that is not made to count more
_COMPONENTS = 20
_FLAT = 1e-6
_STOP = {"ftol": 1e-8, "maxiter": 500}

Floats = NDArray[np.float64]


class View(StrEnum):
    """What of a question is read."""

    SURFACE = "surface"
    VECTORS = "vectors"
    WORDS = "words"


# The surface features help most where questions are of a kind that was not trained on.
_COUNTS = {View.SURFACE: 0.25, View.VECTORS: 1.0, View.WORDS: 1.0}


def train(
    outcomes: Outcomes,
    vectors: Embedded,
    groups: NDArray[np.intp],
    *,
    share: float = 0.5,
    unsure: float = 0.1,
    views: Collection[View] = tuple(View),
) -> RouterModel:
    """Learn a router.

    groups: of near-duplicates, intp [n]. share: of questions like these, how many shall go to the
    strong writer, 0..1. unsure: how many, those nearest to the bar, shall be left to the rules.
    views: what it may read.
    Raises OutcomesError where there are too few outcomes of one kind.
    """
    wanted = (outcomes.gain > 0).astype(np.float64)
    if min(wanted.sum(), len(wanted) - wanted.sum()) < _LEAST:
        raise OutcomesError(
            f"of {len(wanted)} questions only the strong writer answered {int(wanted.sum())}: to "
            f"learn, it takes {_LEAST} of these and {_LEAST} others"
        )
    shown = surfaces(outcomes.texts)
    mean, scale = shown.mean(axis=0), np.maximum(shown.std(axis=0), _FLAT)
    unit = vectors.unit.astype(np.float64)
    centre = unit.mean(axis=0)
    components = _components(unit - centre)
    rarity, words = _words(outcomes.texts)
    seen = {
        View.SURFACE: ((shown - mean) / scale, _PENALTY),
        View.VECTORS: ((unit - centre) @ components, _PENALTY),
        View.WORDS: (words, _WORDS_PENALTY),
    }
    parts = deal(groups, _PARTS, _SEED)
    unseen = np.stack(
        [_unseen(matrix, wanted, penalty, parts) for matrix, penalty in seen.values()],
        axis=1,
    )
    spread = np.maximum(unseen.std(axis=0), _LEAST_SPREAD)
    counts = np.array([_COUNTS[view] if view in views else 0.0 for view in seen]) / spread
    slope, intercept = _fit((unseen @ counts)[:, None], wanted, 0.0)
    calibrated = slope * (unseen @ counts) + intercept

    fitted = {
        view: slope * count * _fit(matrix, wanted, penalty)
        for count, (view, (matrix, penalty)) in zip(counts, seen.items(), strict=True)
    }
    of_surface = fitted[View.SURFACE][:-1] / scale
    of_vector = components @ fitted[View.VECTORS][:-1]
    bias = (
        intercept + sum(one[-1] for one in fitted.values()) - of_surface @ mean - of_vector @ centre
    )
    bar = float(np.quantile(calibrated, 1 - share))
    return RouterModel(
        embedder=vectors.model,
        questions=len(wanted),
        share=share,
        bias=float(bias),
        bar=bar,
        margin=float(np.quantile(np.abs(calibrated - bar), unsure)),
        surface=dict(zip(SURFACE, map(float, of_surface), strict=True)),
        vector=tuple(map(float, of_vector)),
        terms={
            word: Term(rarity=rare, weight=float(weight))
            for (word, rare), weight in zip(rarity.items(), fitted[View.WORDS][:-1], strict=True)
        },
    )


def _components(centred: Floats) -> Floats:
    """The directions of most variance, scaled to a deviation of 1, [d, at most _COMPONENTS]."""
    variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
    kept = np.argsort(-variances)[:_COMPONENTS]
    kept = kept[variances[kept] > _FLAT**2]
    scaled: Floats = directions[:, kept] / np.sqrt(variances[kept])
    return scaled


def _words(texts: Sequence[str]) -> tuple[dict[int, float], Any]:
    """Each word's rarity, ``1 + ln((1 + n) / (1 + df))``, and the questions as rows of length 1."""
    counted = [terms(text) for text in texts]
    frequency: dict[int, int] = {}
    for own in counted:
        for word in own:
            frequency[word] = frequency.get(word, 0) + 1
    rarity = {
        word: 1 + math.log((1 + len(texts)) / (1 + df))
        for word, df in sorted(frequency.items())
        if df >= _SEEN
    }
    column = {word: place for place, word in enumerate(rarity)}
    rows, columns, values = [], [], []
    for row, own in enumerate(counted):
        known = [
            (column[word], times * rarity[word]) for word, times in own.items() if word in rarity
        ]
        length = math.sqrt(sum(value**2 for _, value in known))
        rows += [row] * len(known)
        columns += [place for place, _ in known]
        values += [value / length for _, value in known]
    shape = (len(texts), len(rarity))
    return rarity, sparse.csr_array((values, (rows, columns)), shape=shape)


def _unseen(seen: Any, wanted: Floats, penalty: float, parts: NDArray[np.intp]) -> Floats:
    """The log-odds of each question by what was fitted to the other parts, float64 [n]."""
    odds = np.empty(len(wanted))
    for part in range(_PARTS):
        own, others = np.flatnonzero(parts == part), np.flatnonzero(parts != part)
        weights = _fit(seen[others], wanted[others], penalty)
        odds[own] = seen[own] @ weights[:-1] + weights[-1]
    return odds


def _fit(seen: Any, wanted: Floats, penalty: float) -> Floats:
    """The weights of a logistic regression and, last, its intercept, which is not held to 0."""
    turned = seen.T.tocsr() if sparse.issparse(seen) else seen.T

    def loss(at: Floats) -> tuple[float, Floats]:
        odds = seen @ at[:-1] + at[-1]
        off = 0.5 + 0.5 * np.tanh(0.5 * odds) - wanted
        value = np.logaddexp(0.0, odds).sum() - wanted @ odds + 0.5 * penalty * at[:-1] @ at[:-1]
        return float(value), np.append(turned @ off + penalty * at[:-1], off.sum())

    start = np.zeros(seen.shape[1] + 1)
    found: Floats = minimize(loss, start, jac=True, method="L-BFGS-B", options=_STOP).x
    return found
