"""Fit the calibration of the model that rerank serves, on judged questions.

    python -m tests.quality.calibrate [--queries 600] [--check DIR:SPLIT] --out FILE DIR:SPLIT...

retrieve and rerank must run where the settings say, with the collections' documents in the corpora
that `refdesk eval DIR --split SPLIT --limit 1 --url URL` makes. Candidates are those that a search
has judged: the first 50 chunks of the fused list, as text with the title before it. Judgements are
of documents, so a document counts once, by its best chunk.

The slope is that of a logistic regression in which every collection weighs the same and, in it, the
relevant as much as the others. The intercept then puts 0.5 where a threshold on the raw score has
the best F1, mean over the collections. Put FILE into the model's folder as `calibration.json`.
"""

import argparse
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from scipy.optimize import minimize

from services.rerank.models.calibration import CalibrationFile
from shared.cli.collection import corpus_name, read_collection
from shared.cli.http import Api
from shared.settings import load_settings

WINDOW = 50
CONSOLE = Console()


@dataclass(frozen=True)
class Judged:
    """Candidates of one query: raw scores, float64 [n], and whether they are relevant, bool [n]."""

    raw: NDArray[np.float64]
    relevant: NDArray[np.bool_]


def main() -> None:
    """Gather, fit, measure, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("collections", nargs="+", metavar="DIR:SPLIT")
    parser.add_argument("--check", action="append", default=[], metavar="DIR:SPLIT")
    parser.add_argument("--queries", type=int, default=600, help="of each collection, at most")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    settings = load_settings()
    with (
        Api("retrieve", settings, patience_s=300) as retrieve,
        Api("rerank", settings, patience_s=300) as rerank,
    ):
        info = rerank.get("/info", "model", "backend", "revision")

        def gather(places: Sequence[str]) -> dict[str, list[Judged]]:
            return {
                f"{Path(folder).name} {split}": list(
                    _candidates(retrieve, rerank, Path(folder), split, options.queries)
                )
                for folder, _, split in (place.rpartition(":") for place in places)
            }

        fitted_on, checked_on = gather(options.collections), gather(options.check)
    made = calibration(fitted_on, checked_on, backend=info["backend"], revision=info["revision"])
    options.out.write_text(made.model_dump_json(indent=2) + "\n")
    CONSOLE.print(made)


def _candidates(
    retrieve: Api, rerank: Api, folder: Path, split: str, most: int
) -> Iterator[Judged]:
    collection = read_collection(folder, split)
    corpus = corpus_name(collection)
    names = sorted(collection.queries)
    chosen = np.random.default_rng(0).permutation(len(names))[:most]
    for place in track(chosen, f"{folder.name} {split}", console=CONSOLE):
        name = names[place]
        query, qrels = collection.queries[name], collection.qrels[name]
        asked = {"query": query, "corpora": [corpus], "top_k": WINDOW, "curate": False}
        hits = retrieve.post("/retrieve", asked, "hits")["hits"]
        texts = [f"{hit['title']}\n{hit['text']}" if hit["title"] else hit["text"] for hit in hits]
        body = {"query": query, "documents": texts, "raw_scores": True}
        best: dict[str, float] = {}
        for result in rerank.post("/rerank", body, "results")["results"] if texts else []:
            best.setdefault(hits[result["index"]]["document_id"], result["relevance_score"])
        yield Judged(
            np.array(list(best.values()), np.float64),
            np.array([qrels.get(document, 0) > 0 for document in best], np.bool_),
        )


def calibration(
    fitted_on: dict[str, list[Judged]],
    checked_on: dict[str, list[Judged]],
    *,
    backend: Any,
    revision: str,
) -> CalibrationFile:
    """The constants and what they are worth at a threshold of 0.5.

    The figures of a collection of `fitted_on` are from halves of its queries, each judged by the
    constants that were fitted without it.
    """
    slope, intercept = fit([_joined(queries) for queries in fitted_on.values()])
    figures = {}
    for name, queries in fitted_on.items():
        halves = []
        for half in (0, 1):
            kept = {**fitted_on, name: queries[1 - half :: 2]}
            own = fit([_joined(others) for others in kept.values()])
            judged = _joined(queries[half::2])
            halves.append((own[0] * judged.raw + own[1] >= 0, judged.relevant))
        above = np.concatenate([one for one, _ in halves])
        figures[f"{name}, cross-fitted"] = _at_threshold(
            above, np.concatenate([relevant for _, relevant in halves])
        )
    for name, queries in {**fitted_on, **checked_on}.items():
        judged = _joined(queries)
        figures[name] = _at_threshold(slope * judged.raw + intercept >= 0, judged.relevant)
    names = [f"{name} ({len(queries)} queries)" for name, queries in fitted_on.items()]
    return CalibrationFile(
        backend=backend,
        revision=revision.partition("-")[0],
        slope=round(slope, 4),
        intercept=round(intercept, 4),
        how=f"logistic, fitted on {' and '.join(fitted_on)}; 0.5 is the threshold of best F1",
        fitted_on=names,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
        figures=figures,
    )


def fit(collections: Sequence[Judged]) -> tuple[float, float]:
    """Slope and intercept, as the module's docstring says. Each collection needs both kinds."""
    raw = np.concatenate([one.raw for one in collections])
    sign = np.concatenate([np.where(one.relevant, 1.0, -1.0) for one in collections])
    weight = np.concatenate(
        [
            np.where(one.relevant, 0.5 / one.relevant.sum(), 0.5 / (~one.relevant).sum())
            for one in collections
        ]
    )

    def loss(at: NDArray[np.float64]) -> float:
        return float(weight @ np.logaddexp(0.0, -sign * (at[0] * raw + at[1])))

    slope = float(minimize(loss, np.array([1.0, 0.0]), method="BFGS").x[0])
    thresholds = np.linspace(raw.min(), raw.max(), 1000)
    f1 = np.mean([[_f1(one, at) for at in thresholds] for one in collections], axis=0)
    return slope, -slope * float(thresholds[f1.argmax()])


def _joined(queries: Sequence[Judged]) -> Judged:
    return Judged(
        np.concatenate([one.raw for one in queries]),
        np.concatenate([one.relevant for one in queries]),
    )


def _f1(judged: Judged, threshold: float) -> float:
    above = judged.raw >= threshold
    return float(2 * (above & judged.relevant).sum() / max(1, above.sum() + judged.relevant.sum()))


def _at_threshold(above: NDArray[np.bool_], relevant: NDArray[np.bool_]) -> dict[str, float]:
    right = float((above & relevant).sum())
    return {
        "precision": round(right / max(1, above.sum()), 3),
        "recall": round(right / max(1, relevant.sum()), 3),
        "candidates": float(len(relevant)),
        "relevant": float(relevant.sum()),
    }


if __name__ == "__main__":
    main()
