"""How well the extractive writer answers SQuAD 2.0, and what its declining costs.

    python -m tests.quality.extractive gather --collection DIR [--strangers DIR] --cache DIR
    python -m tests.quality.extractive report --cache DIR [--tuning]
    python -m tests.quality.extractive fit --cache DIR

`gather` starts embed, rerank and retrieve, loads the paragraphs, asks the questions, and keeps in
the cache what the desk found and the vectors that a writer would compare: with them `report` and
`fit` take seconds. It goes on where it was stopped. Strangers are questions of another collection,
about nothing that these paragraphs speak of.

Articles are split in halves: those whose title's SHA-256 begins with a byte below 128 are for
tuning, and `fit` sees no others; the rest is reported. Questions are spread evenly over the
articles and over each article's questions. The unanswerable ones are written to look answerable by
the same paragraph.

`report` prints JSON: how often the paragraph is retrieved, how often a reference answer stands in
the answer, and which share of the unanswerable questions is declined where 5, 10, 15 or 20 of 100
answerable ones are. `fit` prints the constants of services/generate/reading/evidence.py.
"""

import argparse
import asyncio
import json
import random
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from services.generate.peers.desk import Desk
from services.generate.protocol import Options
from services.generate.reading.evidence import (
    MIN_CONFIDENCE,
    MIN_RELEVANCE,
    Evidence,
    confidence,
    signs,
    with_similarities,
)
from services.generate.reading.evidence import gather as gather_evidence
from services.generate.reading.extract import choose, write
from services.generate.reading.passages import Passage
from services.generate.reading.sentences import split
from services.generate.reading.words import without_markers
from shared.client import ServiceClient
from shared.settings import Settings
from shared.vectors import read_vectors
from tests.quality.squad import Question, is_tuning, questions, rows, sampled, strangers
from tests.suite import prepare_suite

CORPUS = "squad"
BATCH = 64
WRONGLY_DECLINED = (0.05, 0.10, 0.15, 0.20)  # the points of the curve
WRONG = 0.15  # of the answerable questions may be declined
SURE, DRAWS = 0.95, 2000
# What speaks against a sentence.
AGAINST = frozenset(
    {"scattered", "names", "numbers", "qualifiers", "denials", "negated", "denied", "opposite"}
)
STRENGTH = 10.0  # of the pull of the fit's weights, in units of standard deviations, towards 0


@dataclass(frozen=True)
class Asked:
    """A question and what the desk found for it."""

    question: Question
    passages: tuple[Passage, ...]


@dataclass(frozen=True)
class Answered:
    """A question and what the writer makes of it. milliseconds: of CPU time, without vectors."""

    question: Question
    retrieved: bool
    contained: bool
    evidence: Sequence[Evidence]
    confidence: float
    sentences: int
    milliseconds: float


def load(client: httpx.Client, url: str, corpus: str, collection: Path) -> None:
    """Put the paragraphs into the corpus; what is there already is left as it is."""
    documents = list(rows(collection / "corpus.jsonl"))
    client.put(f"{url}/corpora/{corpus}", json={"description": "SQuAD 2.0"}).raise_for_status()
    for start in range(0, len(documents), BATCH):
        batch = [
            {"id": row["_id"], "title": row["title"], "text": row["text"]}
            for row in documents[start : start + BATCH]
        ]
        response = client.post(f"{url}/corpora/{corpus}/documents", json={"documents": batch})
        response.raise_for_status()
        print(f"loaded {start + len(batch)} of {len(documents)}", end="\r", file=sys.stderr)


async def gather(wanted: Sequence[Question], collection: Path, cache: Path) -> None:
    """Ask the desk what the cache lacks, and embed what a writer would compare."""
    known = {one.question.id for one in read(cache)}
    missing = [one for one in wanted if one.id not in known]
    suite = prepare_suite(cache)
    try:
        retrieve, embed = suite.url("retrieve"), suite.url("embed")
        with httpx.Client(timeout=600) as client:
            load(client, retrieve, CORPUS, collection)
        await _ask(retrieve, missing, cache)
        _embed(embed, cache)
    finally:
        suite.stop()


async def _ask(url: str, asked: Sequence[Question], cache: Path) -> None:
    desk = Desk(ServiceClient("retrieve", url, settings=Settings()))
    options = Options()
    with (cache / "found.jsonl").open("a", encoding="utf-8") as file:
        for place, one in enumerate(asked, start=1):
            found = await desk.retrieve(
                one.text,
                [CORPUS],
                top_k=options.top_k,
                max_tokens=options.max_tokens,
                curate=options.curate,
            )
            if found.degraded:
                raise SystemExit(f"the search did without {', '.join(found.degraded)}")
            line = {"question": asdict(one), "passages": [vars(hit) for hit in found.passages]}
            file.write(json.dumps(line) + "\n")
            print(f"asked {place} of {len(asked)}", end="\r", file=sys.stderr)
    await desk.close()


def _embed(url: str, cache: Path) -> None:
    known = vectors(cache)
    missing = sorted(
        {
            text
            for one in read(cache)
            for text in (
                one.question.text,
                *(
                    sentence.text
                    for passage in one.passages
                    for sentence in split(without_markers(passage.text))
                ),
            )
        }
        - known.keys(),
        key=len,
    )
    with httpx.Client(base_url=url, timeout=600) as client:
        for start in range(0, len(missing), BATCH):
            batch = missing[start : start + BATCH]
            body = {"input": batch, "encoding_format": "base64"}
            answer = client.post("/v1/embeddings", json=body).raise_for_status().json()
            made = read_vectors(answer, len(batch))
            known |= dict(zip(batch, made, strict=True))
            print(f"embedded {start + len(batch)} of {len(missing)}", end="\r", file=sys.stderr)
    (cache / "texts.json").write_text(json.dumps(list(known)), "utf-8")
    np.save(cache / "vectors.npy", np.stack(list(known.values())))


def read(cache: Path) -> list[Asked]:
    """What was gathered."""
    path = cache / "found.jsonl"
    return [
        Asked(
            Question(**{**row["question"], "answers": tuple(row["question"]["answers"])}),
            tuple(Passage(**passage) for passage in row["passages"]),
        )
        for row in (rows(path) if path.exists() else ())
    ]


def vectors(cache: Path) -> dict[str, NDArray[np.float32]]:
    """Unit vectors of all texts that were embedded, float32 [d] each."""
    if not (cache / "texts.json").exists():
        return {}
    texts = json.loads((cache / "texts.json").read_text("utf-8"))
    return dict(zip(texts, np.load(cache / "vectors.npy"), strict=True))


def answer(asked: Asked, known: Mapping[str, NDArray[np.float32]] | None) -> Answered:
    """What the writer makes of a question, with vectors or, where they are None, without."""
    started = time.process_time()
    evidence = gather_evidence(asked.question.text, asked.passages)
    spent = time.process_time() - started
    if known is not None:
        question = known[asked.question.text]
        similarities = [float(known[one.sentence.text] @ question) for one in evidence]
        evidence = with_similarities(evidence, similarities)
    started = time.process_time()
    sure = confidence(evidence)
    chosen = choose(evidence)
    text = _plain(write(chosen))
    spent += time.process_time() - started
    return Answered(
        asked.question,
        asked.question.document_id in {one.document_id for one in asked.passages},
        any(_plain(one) in text for one in asked.question.answers),
        evidence,
        sure,
        len(chosen),
        spent * 1000,
    )


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def report(answered: Sequence[Answered]) -> dict[str, Any]:
    """Shares, 0..1, but for the counts, the bars and the milliseconds."""
    answerable = [one for one in answered if one.question.answers]
    misleading = [one for one in answered if one.question.document_id and not one.question.answers]
    foreign = [one for one in answered if not one.question.document_id]
    found = [one for one in answerable if one.retrieved]

    def at(bar: float) -> dict[str, float]:
        shown = [one for one in found if one.confidence >= bar]
        right = sum(one.contained for one in shown)
        return {
            "bar": round(bar, 3),
            "answerable_declined": _share([one.confidence < bar for one in answerable]),
            "unanswerable_declined": _share([one.confidence < bar for one in misleading]),
            "strangers_declined": _share([one.confidence < bar for one in foreign]),
            "answers_that_contain": round(right / max(1, len(shown)), 3),
            "retrieved_that_are_answered_right": round(right / max(1, len(found)), 3),
        }

    sure = [one.confidence for one in answerable]
    return {
        "answerable": len(answerable),
        "unanswerable": len(misleading),
        "strangers": len(foreign),
        "retrieved": _share([one.retrieved for one in answerable]),
        "contained_if_never_declined": _share([one.contained for one in found]),
        "sentences": round(statistics.mean(one.sentences for one in answered), 2),
        "p50_ms": round(statistics.median(one.milliseconds for one in answered), 2),
        "at_min_confidence": at(MIN_CONFIDENCE),
        "at_min_relevance": at(MIN_RELEVANCE),
        "curve": [at(float(np.quantile(sure, wrong))) for wrong in WRONGLY_DECLINED],
    }


def _share(seen: Sequence[bool]) -> float:
    return round(sum(seen) / max(1, len(seen)), 3)


def fit(answered: Sequence[Answered]) -> dict[str, float]:
    """The weights of a logistic regression to "the question is answerable", ``bias`` among them.

    No sign may count the wrong way round, however much these questions would have it so.
    """
    seen = [(signs(one.evidence), bool(one.question.answers)) for one in answered if one.evidence]
    names = list(seen[0][0])
    table = np.array([[row[name] for name in names] for row, _ in seen])
    sign = np.array([1.0 if answerable else -1.0 for _, answerable in seen])
    middle, spread = table.mean(axis=0), np.maximum(table.std(axis=0), 1e-9)
    scaled = (table - middle) / spread

    def loss(at: NDArray[np.float64]) -> float:
        pull = STRENGTH / 2 * float(at[1:] @ at[1:])
        return float(np.logaddexp(0.0, -sign * (at[0] + scaled @ at[1:])).sum()) + pull

    bounds = [(None, None), *((None, 0) if name in AGAINST else (0, None) for name in names)]
    best = minimize(loss, np.zeros(len(names) + 1), method="L-BFGS-B", bounds=bounds).x
    weights = best[1:] / spread
    fitted = dict(zip(names, weights, strict=True))
    return {"bias": best[0] - float(weights @ middle)} | fitted


def bar(answered: Sequence[Answered]) -> float:
    """The confidence under which at most `WRONG` of the answerable questions fall, 0..1.

    Articles differ: it holds for 19 in 20 draws of as many articles from those that there are.
    """
    by_article: dict[str, list[float]] = defaultdict(list)
    for one in answered:
        if one.question.answers:
            by_article[one.question.article].append(one.confidence)
    articles = list(by_article.values())
    chance = random.Random(0)
    draws = (chance.choices(articles, k=len(articles)) for _ in range(DRAWS))
    bars = [float(np.quantile([at for article in draw for at in article], WRONG)) for draw in draws]
    return float(np.quantile(bars, 1 - SURE))


def main() -> None:
    """The command line. Results go to standard output as JSON, progress to standard error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("step", choices=["gather", "report", "fit"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--collection", type=Path, help="folder of squad-v2-dev")
    parser.add_argument("--strangers", type=Path, help="folder of another collection")
    parser.add_argument("--count", type=int, default=700, help="questions of each kind and half")
    parser.add_argument("--tuning", action="store_true", help="report the tuning half")
    parser.add_argument("--without-vectors", action="store_true")
    options = parser.parse_args()
    if options.step == "gather":
        options.cache.mkdir(parents=True, exist_ok=True)
        wanted = sampled(questions(options.collection), options.count)
        wanted += strangers(options.strangers) if options.strangers else []
        asyncio.run(gather(wanted, options.collection, options.cache))
        return
    half = options.tuning or options.step == "fit"
    known = None if options.without_vectors else vectors(options.cache)
    answered = [
        answer(one, known) for one in read(options.cache) if is_tuning(one.question.article) == half
    ]
    if options.step == "fit":
        fitted = fit(answered) | {"bar by the present weights": bar(answered)}
        print(json.dumps({name: round(at, 3) for name, at in fitted.items()}, indent=2))
    else:
        print(json.dumps(report(answered), indent=2))


if __name__ == "__main__":
    main()
