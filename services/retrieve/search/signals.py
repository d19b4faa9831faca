"""Signals: what the search itself tells about how well the question is answered. Pure functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.retrieve.search.candidates import Arm, ChunkKey, Run
from services.retrieve.search.pack import Passage
from services.retrieve.search.recency import decay

# Half life of the signal `freshness` where the search itself names none.
FRESH_DAYS = 365.0
_TOP = 10


class Terms(Protocol):
    """How a corpus sees words: its analyser."""

    def terms(self, text: str) -> list[str]:
        """The terms of a text, in order, with repeats."""
        ...


@dataclass(frozen=True, slots=True)
class Signals:
    """What a router may go by; a number is 0.0 where there is nothing to measure.

    top_score: the shown score of the best hit. margin: how far it is above the best hit of another
    document (all of it, if there is no other). agreement: share of the arms' top 10 that all arms
    have in common, mean over corpora; 0.0 if fewer than two arms answered. coverage: share of the
    query's terms that occur in title or text of the ten best hits. documents: distinct documents
    among the hits. freshness: of the best hit, 1.0 for today, 0.5 after one half life; None where
    it has no date.
    """

    top_score: float
    margin: float
    agreement: float
    coverage: float
    documents: int
    freshness: float | None


def agreement(runs: Sequence[Run]) -> float:
    """Overlap of the arms' first ten, 0..1: common chunks over the longest of the lists.

    It is taken per corpus and averaged over the corpora in which any arm found something. Lists of
    other wordings of the question do not count, nor does the arm that only checks another.
    """
    arms = {run.arm for run in runs}
    tops: dict[str, list[set[int]]] = {}
    for run in runs:
        twice = run.arm is Arm.BM25_EXACT and Arm.BM25 in arms
        if run.query == 0 and not twice:
            tops.setdefault(run.corpus, []).append({key.key for key, _ in run.ranked[:_TOP]})
    shares = [
        len(set.intersection(*lists)) / max(len(found) for found in lists)
        for lists in tops.values()
        if len(lists) > 1 and any(lists)
    ]
    return sum(shares) / len(shares) if shares else 0.0


def coverage(query: str, hits: Sequence[Passage], terms: Mapping[str, Terms]) -> float:
    """Share of the query's terms found in the ten best hits, 0..1; `terms` by corpus."""
    asked: set[str] = set()
    for corpus in terms.values():
        asked.update(corpus.terms(query))
    found: set[str] = set()
    for hit in hits[:_TOP]:
        text = f"{hit.record.title or ''}\n{hit.record.text}"
        found.update(terms[hit.ranked.key.corpus].terms(text))
    return len(asked & found) / len(asked) if asked else 0.0


def signals(
    query: str,
    hits: Sequence[Passage],
    ranking: Sequence[Passage],
    runs: Sequence[Run],
    terms: Mapping[str, Terms],
    ages_days: Mapping[ChunkKey, float | None] | None = None,
    half_life_days: float = FRESH_DAYS,
) -> Signals:
    """All signals of a finished search. `ranking` is what the hits were taken from, best first.

    ages_days: at least of the best hit; a chunk that is not in it has no date.
    """
    top = hits[0] if hits else None
    rival = next((one for one in ranking if top and _document(one) != _document(top)), None)
    top_score = top.ranked.score if top else 0.0
    return Signals(
        top_score=top_score,
        # A rival above the top hit was too long for the budget: then there is no lead to report.
        margin=round(max(0.0, top_score - (rival.ranked.score if rival else 0.0)), 6),
        agreement=round(agreement(runs), 6),
        coverage=round(coverage(query, hits, terms), 6),
        documents=len({_document(hit) for hit in hits}),
        freshness=freshness(hits, ages_days or {}, half_life_days),
    )


def freshness(
    hits: Sequence[Passage], ages_days: Mapping[ChunkKey, float | None], half_life_days: float
) -> float | None:
    """0.5 ** (age of the best hit / half life), 0..1; None where it has no date."""
    age = ages_days.get(hits[0].ranked.key) if hits else None
    return None if age is None else round(decay(age, half_life_days), 6)


def _document(passage: Passage) -> tuple[str, str]:
    return passage.ranked.key.corpus, passage.record.document_id
