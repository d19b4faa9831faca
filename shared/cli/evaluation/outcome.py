"""All that an evaluation found, as a value, and as the JSON object that ``--json`` prints."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shared.cli.collection import Collection
from shared.cli.evaluation.figures import MAIN, compared, figures, means
from shared.cli.evaluation.losses import Loss, worst
from shared.cli.evaluation.runs import Run
from shared.cli.evaluation.significance import Comparison
from shared.cli.evaluation.variants import ARM_NAMES, DEFAULT, SINGLE, Variant, baseline_of

# The rule "curation does no harm": curated - best single arm in nDCG@10 is at least this.
HARM_LIMIT = -0.005
_DIGITS = 4


@dataclass(frozen=True)
class Harm:
    """Whether the desk's default does harm: `difference` is curated - `best` in mean nDCG@10."""

    best: str
    difference: float

    @property
    def holds(self) -> bool:
        """Whether the rule does."""
        return self.difference >= HARM_LIMIT


@dataclass(frozen=True)
class Worst:
    """The queries that `name` lost most with, against `baseline`."""

    name: str
    baseline: str
    losses: Sequence[Loss]


@dataclass(frozen=True)
class Index:
    """Where the documents are. folder: None at a service that was there. kept: from before."""

    corpus: str
    folder: str | None
    bytes: int | None
    kept: bool


@dataclass(frozen=True)
class Outcome:
    """What an evaluation found.

    figures: mean of each measure, by arm and by variant. against: each arm's comparison with
    `baseline`, and each variant's with the default. harm: None unless bm25, dense and the default
    were run.
    """

    collection: Collection
    split: str
    index: Index
    variants: Sequence[Variant]
    runs: Mapping[str, Run]
    figures: Mapping[str, Mapping[str, float]]
    baseline: str
    against: Mapping[str, Mapping[str, Comparison]]
    harm: Harm | None
    worst: Sequence[Worst]

    @property
    def arms(self) -> list[str]:
        """The names of the arms that were run."""
        return [variant.name for variant in self.variants if variant.name in ARM_NAMES]

    @property
    def compared(self) -> list[Variant]:
        """The variants that are no arms."""
        return [variant for variant in self.variants if variant.name not in ARM_NAMES]


def judge(
    collection: Collection,
    split: str,
    index: Index,
    variants: Sequence[Variant],
    runs: Mapping[str, Run],
    *,
    baseline: str,
    most: int,
) -> Outcome:
    """Figures and comparisons of `runs`. baseline: empty for the best single arm. most: how many
    of the queries that lost most are wanted."""
    qrels = collection.qrels
    values = {name: figures(qrels, run.rankings) for name, run in runs.items()}
    mean = {name: means(column) for name, column in values.items()}
    arms = [name for name in runs if name in ARM_NAMES]
    ndcg = {name: mean[name][MAIN] for name in arms}
    baseline = baseline_of(arms, baseline, ndcg)
    others = [name for name in arms if name != baseline]
    pairs = [(name, baseline) for name in others]
    own = [(name, DEFAULT) for name in runs if name not in ARM_NAMES]
    # Of the arms, the desk's default or what comes nearest to it.
    shown = [*pairs[-1:], *own] if most else []
    return Outcome(
        collection=collection,
        split=split,
        index=index,
        variants=variants,
        runs=runs,
        figures=mean,
        baseline=baseline,
        against={name: compared(values[name], values[base]) for name, base in [*pairs, *own]},
        harm=_harm(ndcg),
        worst=[
            Worst(
                name,
                base,
                worst(
                    most,
                    qrels,
                    values[name],
                    values[base],
                    runs[name].rankings,
                    runs[base].rankings,
                ),
            )
            for name, base in shown
        ],
    )


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The object that docs/guides/evaluate.md describes."""
    found: dict[str, Any] = {
        "collection": outcome.collection.name,
        "docs": len(outcome.collection.documents),
        "queries": len(outcome.collection.queries),
        "arms": {name: _rounded(outcome.figures[name]) for name in outcome.arms},
        "split": outcome.split,
        "baseline": outcome.baseline,
        "against_baseline": {
            name: _comparisons(outcome.against[name])
            for name in outcome.arms
            if name != outcome.baseline
        },
        "does_no_harm": outcome.harm
        and {
            "best_single_arm": outcome.harm.best,
            "difference": round(outcome.harm.difference, _DIGITS),
            "limit": HARM_LIMIT,
            "holds": outcome.harm.holds,
        },
        "variants": {
            variant.name: {
                "settings": dict(variant.settings),
                **_rounded(outcome.figures[variant.name]),
                "against_default": _comparisons(outcome.against[variant.name]),
            }
            for variant in outcome.compared
        },
        "latency_ms": {name: run.latency_ms() for name, run in outcome.runs.items()},
        "skipped": {name: dict(run.skipped) for name, run in outcome.runs.items()},
        "index": asdict(outcome.index),
    }
    if outcome.worst:
        found["worst"] = [
            {"arm": one.name, "baseline": one.baseline, "queries": _losses(outcome, one)}
            for one in outcome.worst
        ]
    return found


def _harm(ndcg: Mapping[str, float]) -> Harm | None:
    single = [name for name in SINGLE if name in ndcg]
    if DEFAULT not in ndcg or not {"bm25", "dense"} <= set(single):
        return None
    best = max(single, key=lambda name: ndcg[name])
    # Without what is rounding alone: exactly at the limit, the rule holds.
    return Harm(best, round(ndcg[DEFAULT] - ndcg[best], 12))


def _losses(outcome: Outcome, one: Worst) -> list[dict[str, Any]]:
    titles = {document.id: document.title for document in outcome.collection.documents}
    return [
        {
            "query": loss.query,
            "text": outcome.collection.queries[loss.query],
            MAIN: round(loss.value, _DIGITS),
            f"baseline_{MAIN}": round(loss.baseline_value, _DIGITS),
            "judged": [
                {**asdict(judged), "title": titles.get(judged.id, "")} for judged in loss.judged
            ],
            "instead": [
                {"id": document, "rank": rank, "title": titles.get(document, "")}
                for rank, document in loss.instead
            ],
        }
        for loss in one.losses
    ]


def _comparisons(against: Mapping[str, Comparison]) -> dict[str, dict[str, float]]:
    return {measure: _rounded(asdict(comparison)) for measure, comparison in against.items()}


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(value, _DIGITS) for name, value in values.items()}
