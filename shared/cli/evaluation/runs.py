"""Asks the desk every query in every way, and keeps what it found and how long it took."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from shared.cli.evaluation.figures import DEPTH
from shared.cli.evaluation.variants import Variant
from shared.cli.failures import CliError
from shared.cli.http import Api

# Chunks are asked for, documents are judged: 400 chunks hold 100 documents or more unless
# documents are very long.
_CHUNKS = 400
_PAUSES_S = (0.5, 2.0)  # before asking again: on a busy machine a stage may miss its time


@dataclass
class Run:
    """What one way to ask found.

    rankings: documents by query, best first, at most 100. timings_ms: milliseconds of each query
    in which the stage ran, by stage; `http` is the whole call as this process saw it. skipped:
    queries for which the desk chose to leave a stage out, by stage.
    """

    rankings: dict[str, list[str]] = field(default_factory=dict)
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)

    def latency_ms(self) -> dict[str, dict[str, float]]:
        """Median and 95th percentile of each stage that ran, `http` first."""
        return {
            stage: {
                "p50": round(float(np.percentile(values, 50)), 2),
                "p95": round(float(np.percentile(values, 95)), 2),
            }
            for stage, values in self.timings_ms.items()
        }


def body(query: str, corpus: str, variant: Variant) -> dict[str, Any]:
    """The request in which `variant` asks `query`."""
    return {
        "query": query,
        "corpora": [corpus],
        "top_k": _CHUNKS,
        "candidates": _CHUNKS,
        **variant.settings,
    }


def search(
    api: Api,
    corpus: str,
    queries: Mapping[str, str],
    variants: Sequence[Variant],
    on_query: Callable[[], None],
) -> dict[str, Run]:
    """The run of each variant, by its name.

    All of them ask a query before the next one comes, one request at a time: what else happens on
    the machine meets all alike. They take turns in going first, because whoever does finds
    nothing cached. on_query: called after each query. Raises CliError if a stage keeps failing.
    """
    runs = {variant.name: Run() for variant in variants}
    for number, (query, text) in enumerate(queries.items()):
        first = number % len(variants)
        for variant in [*variants[first:], *variants[:first]]:
            _ask(api, body(text, corpus, variant), query, runs[variant.name])
        on_query()
    return runs


def _ask(api: Api, request: dict[str, Any], query: str, run: Run) -> None:
    for pause_s in (*_PAUSES_S, None):
        started = time.perf_counter()
        answer = api.post("/retrieve", request, "hits", "degraded", "timings_ms")
        http_ms = (time.perf_counter() - started) * 1000
        if not answer["degraded"]:
            break
        if pause_s is None:  # an answer without a stage is not the variant's
            raise CliError(
                f"the desk answered {len(_PAUSES_S) + 1} times without "
                f"{', '.join(answer['degraded'])}, so that the figures would be wrong: "
                "is the machine too busy, or a service down?"
            )
        time.sleep(pause_s)
    # A document takes the place of its best chunk, or of the passage that says the same and lists
    # it. Interned: each comes up for many queries.
    documents = dict.fromkeys(
        sys.intern(place["document_id"])
        for hit in answer["hits"]
        for place in (hit, *hit["duplicates"])
    )
    run.rankings[query] = list(documents)[:DEPTH]
    for stage, ms in {"http": http_ms, **answer["timings_ms"]}.items():
        if ms:  # 0 stands for a stage that did not run
            run.timings_ms.setdefault(stage, []).append(ms)
    run.skipped.update({skip["stage"] for skip in answer.get("skipped", [])})
