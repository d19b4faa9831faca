"""The contest of routers on recorded outcomes: each question is judged by who has not seen it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from services.generate.policy.file import default_policy
from services.generate.reading.passages import Signals
from services.generate.reading.question import features
from services.generate.routing.features import RoutingFeatures
from services.generate.routing.learned.measures import Measured, measure
from services.generate.routing.learned.model import Lean, RouterModel
from services.generate.routing.learned.outcomes import Outcomes, OutcomesError
from services.generate.routing.learned.train import train
from services.generate.routing.learned.vectors import Embedded
from services.generate.routing.router import route

LENGTH, LEARNED = "prompt length", "learned"
_TENTHS = 10

Trainer = Callable[[Outcomes, Embedded, NDArray[np.intp]], RouterModel]


@dataclass(frozen=True)
class Decisions:
    """What came of the learned router's own decisions. All are shares of the questions, 0..1.

    right: with the writer that it leans to; weak_right, strong_right: with that one for all.
    strong: leaning to the strong writer. unsure: left to the rules. calibration_error: how far the
    probability of a gain is from its frequency, mean over ten parts of equal size, by probability.
    """

    right: float
    weak_right: float
    strong_right: float
    strong: float
    unsure: float
    calibration_error: float


@dataclass(frozen=True)
class Replay:
    """questions, groups (of near-duplicates) and folds, counted. folds: 0 for a router as it is."""

    questions: int
    groups: int
    folds: int
    routers: dict[str, Measured]
    decisions: Decisions


@dataclass(frozen=True)
class Judged:
    """Questions as a router that was not trained on them sees them: log-odds, float64 [n]."""

    router: RouterModel
    places: NDArray[np.intp]
    log_odds: NDArray[np.float64]


def cross_judge(
    outcomes: Outcomes,
    vectors: Embedded,
    groups: NDArray[np.intp],
    fold: NDArray[np.intp],
    trainer: Trainer = train,
) -> list[Judged]:
    """Each fold, judged by a router that was trained on the others."""
    judged = []
    for one in np.unique(fold):
        own, others = np.flatnonzero(fold == one), np.flatnonzero(fold != one)
        router = trainer(outcomes.rows(others), vectors.rows(others), groups[others])
        judged.append(judge(router, outcomes.rows(own), vectors.rows(own), own))
    return judged


def judge(
    router: RouterModel, outcomes: Outcomes, vectors: Embedded, places: NDArray[np.intp]
) -> Judged:
    """What a router makes of questions. Raises OutcomesError for another embedder's vectors."""
    if router.embedder != vectors.model:
        raise OutcomesError(
            f"the router reads vectors of {router.embedder}, and embed serves {vectors.model}: "
            "train it again"
        )
    return Judged(router, places, router.log_odds(outcomes.texts, vectors.unit))


def replay(
    outcomes: Outcomes,
    judged: list[Judged],
    groups: NDArray[np.intp],
    *,
    folds: int,
    seed: int,
) -> Replay:
    """The figures of the learned router, of simpler ones and of the oracle."""
    gain = outcomes.gain
    learned = np.empty(len(gain))
    for one in judged:
        learned[one.places] = one.log_odds
    routers = {
        "random": np.random.default_rng(seed).random(len(gain)),
        LENGTH: outcomes.characters,
        "rules": rule_scores(outcomes.texts),
        LEARNED: learned,
        "oracle": gain,
    }
    return Replay(
        questions=len(gain),
        groups=len(np.unique(groups)),
        folds=folds,
        routers=measure(routers, LENGTH, gain, groups),
        decisions=_decisions(outcomes, judged, learned),
    )


def rule_scores(questions: tuple[str, ...]) -> NDArray[np.float64]:
    """Of each question the place of its tier, where the default policy finds good evidence for it.

    0.0 is the cheapest tier; float64 [n]. The rules read what retrieval found as well; recorded
    outcomes of bare questions have none of it.
    """
    policy = default_policy()
    place = {tier: float(number) for number, tier in enumerate(policy.tiers)}
    signals = Signals(1.0, 1.0, 1.0, 1.0, 1)
    asked = (RoutingFeatures(one, features(one), signals, 1.0) for one in questions)
    tiers = (route(one, policy).tier for one in asked)
    return np.array([place[tier] if tier else -1.0 for tier in tiers])


def _decisions(outcomes: Outcomes, judged: list[Judged], learned: NDArray[np.float64]) -> Decisions:
    count = len(learned)
    strong, unsure = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    for one in judged:
        opinions = [one.router.opinion(odds) for odds in one.log_odds]
        strong[one.places] = [opinion.leans is Lean.STRONG for opinion in opinions]
        unsure[one.places] = [opinion.choice is Lean.UNSURE for opinion in opinions]
    likely = 0.5 + 0.5 * np.tanh(0.5 * learned)
    gained = outcomes.gain > 0
    parts = np.array_split(np.argsort(likely, kind="stable"), min(_TENTHS, count))
    errors = [abs(likely[part].mean() - gained[part].mean()) for part in parts]
    return Decisions(
        right=float(np.where(strong, outcomes.strong, outcomes.weak).mean()),
        weak_right=float(outcomes.weak.mean()),
        strong_right=float(outcomes.strong.mean()),
        strong=float(strong.mean()),
        unsure=float(unsure.mean()),
        calibration_error=float(np.mean(errors)),
    )
