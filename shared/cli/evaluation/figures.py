"""The measures of a run: of each query, and their means."""

from collections.abc import Mapping, Sequence

import ir_measures
import numpy as np
from ir_measures import RR, R, nDCG

from shared.cli.evaluation.significance import Comparison, Differences, compare

_MEASURES = (nDCG @ 10, R @ 100, RR @ 10)
MEASURES = tuple(str(measure) for measure in _MEASURES)
MAIN = MEASURES[0]
DEPTH = 100  # documents of a ranking that the measures look at

Qrels = Mapping[str, Mapping[str, int]]
Figures = Mapping[str, Differences]  # values by measure, float64 [queries]


def figures(qrels: Qrels, rankings: Mapping[str, Sequence[str]]) -> Figures:
    """Each measure's values, float64 [queries], in the order of `qrels`.

    rankings: documents by query, best first. A query that found nothing has the value 0.
    """
    # The order is meant, so that scores only have to fall.
    run = {
        query: {document: 1.0 / place for place, document in enumerate(documents, start=1)}
        for query, documents in rankings.items()
    }
    places = {query: place for place, query in enumerate(qrels)}
    values = {name: np.zeros(len(places)) for name in MEASURES}
    for found in ir_measures.iter_calc(_MEASURES, qrels, run):
        values[str(found.measure)][places[found.query_id]] = found.value
    return values


def means(values: Figures) -> dict[str, float]:
    """The mean of each measure over the queries."""
    return {name: float(column.mean()) for name, column in values.items()}


def compared(values: Figures, baseline: Figures) -> dict[str, Comparison]:
    """`values` against `baseline`, in each measure."""
    return {name: compare(difference(values, baseline, name)) for name in MEASURES}


def difference(values: Figures, baseline: Figures, measure: str = MAIN) -> Differences:
    """Of each query, value - baseline's value, without what is rounding alone."""
    rounded: Differences = np.round(values[measure] - baseline[measure], 12)
    return rounded
