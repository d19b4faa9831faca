"""How well the suite answers SQuAD 2.0, and how often it admits that the sources do not answer.

    python -m tests.quality.squad_baseline --collection DIR --retrieve-url URL --generate-url URL

It loads the collection's paragraphs into a corpus of running services, asks 100 answerable and 100
unanswerable questions over HTTP, and prints how often

* the passage that holds the answer is among the retrieved, and among the cited ones;
* a reference answer stands in the text;
* an answerable question is declined, and an unanswerable one is.

The questions are about the articles that nothing was tuned on: those whose title's SHA-256 begins
with a byte of 128 or more (services/generate/answer/evidence.py names the others). They are spread
evenly over the articles and over each article's questions. The unanswerable ones of SQuAD 2.0 are
written to look answerable by the same paragraph: an answer to one of them quotes a true sentence
that does not answer.
"""

import argparse
import hashlib
import json
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from shared.settings import Settings

_BATCH = 64


@dataclass(frozen=True)
class Question:
    """A question with the paragraph it is about. answers: empty if that does not answer it."""

    text: str
    document_id: str
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Shares are of 0..1. tiers: how many answers each writer gave. p50_ms: of the whole answer."""

    answerable: int
    unanswerable: int
    retrieved: float
    cited: float
    contained: float
    wrongly_declined: float
    rightly_declined: float
    tiers: dict[str, int]
    p50_ms: float


def rows(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def is_reported(title: str) -> bool:
    """Whether an article's questions may be reported: nothing was tuned on them."""
    return hashlib.sha256(title.encode()).digest()[0] >= 128


def questions(folder: Path, titles: dict[str, str]) -> tuple[list[Question], list[Question]]:
    """All answerable and all unanswerable questions about the reported articles."""
    lines = (folder / "qrels.tsv").read_text("utf-8").splitlines()[1:]
    paragraph = {query: document for query, document, _ in (line.split("\t") for line in lines)}
    answerable = [
        Question(row["text"], paragraph[row["_id"]], tuple(row["answers"]))
        for row in rows(folder / "queries.jsonl")
    ]
    unanswerable = [
        Question(row["text"], row["unanswerable_from"], ())
        for row in rows(folder / "queries_unanswerable.jsonl")
    ]
    return (
        [one for one in answerable if is_reported(titles[one.document_id])],
        [one for one in unanswerable if is_reported(titles[one.document_id])],
    )


def sample(asked: Sequence[Question], titles: dict[str, str], count: int) -> list[Question]:
    """`count` questions, as evenly over the articles, and within each, as it goes. No chance."""
    by_article: dict[str, list[Question]] = defaultdict(list)
    for one in asked:
        by_article[titles[one.document_id]].append(one)
    share, extra = divmod(count, len(by_article))
    chosen = []
    for place, title in enumerate(sorted(by_article)):
        several = by_article[title]
        wanted = min(len(several), share + (place < extra))
        chosen += [several[step * len(several) // wanted] for step in range(wanted)]
    return chosen


def load(client: httpx.Client, url: str, corpus: str, documents: list[dict[str, Any]]) -> None:
    """Put the paragraphs into the corpus; what is there already is left as it is."""
    client.put(f"{url}/corpora/{corpus}", json={"description": "SQuAD 2.0"}).raise_for_status()
    for start in range(0, len(documents), _BATCH):
        batch = [
            {"id": row["_id"], "title": row["title"], "text": row["text"]}
            for row in documents[start : start + _BATCH]
        ]
        response = client.post(f"{url}/corpora/{corpus}/documents", json={"documents": batch})
        response.raise_for_status()
        print(f"loaded {start + len(batch)} of {len(documents)}", file=sys.stderr)


def ask(client: httpx.Client, url: str, corpus: str, model: str, text: str) -> dict[str, Any]:
    """One whole chat completion."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": text}],
        "refdesk": {"corpora": [corpus]},
    }
    response = client.post(f"{url}/v1/chat/completions", json=body)
    response.raise_for_status()
    answer: dict[str, Any] = response.json()
    return answer


def measure(
    client: httpx.Client, url: str, corpus: str, model: str, asked: Sequence[Question]
) -> Report:
    """Ask every question, one after the other."""
    counts: Counter[str] = Counter()
    tiers: Counter[str] = Counter()
    times = []
    for place, one in enumerate(asked, start=1):
        answer = ask(client, url, corpus, model, one.text)
        trace = answer["refdesk"]
        content = answer["choices"][0]["message"]["content"]
        declined = not trace["decision"]["answered"]
        tiers["declined" if declined else trace["decision"]["endpoint"]] += 1
        times.append(trace["timings_ms"]["total"])
        if one.answers:
            passages = {passage["n"]: passage["document_id"] for passage in trace["passages"]}
            cited = {passages[n] for n in passages if f"[{n}]" in content}
            counts["answerable"] += 1
            counts["retrieved"] += one.document_id in passages.values()
            counts["cited"] += one.document_id in cited
            plain = " ".join(content.lower().split())
            counts["contained"] += any(
                " ".join(answer.lower().split()) in plain for answer in one.answers
            )
            counts["wrongly_declined"] += declined
        else:
            counts["unanswerable"] += 1
            counts["rightly_declined"] += declined
        print(f"asked {place} of {len(asked)}", end="\r", file=sys.stderr)
    print(file=sys.stderr)
    answerable = max(1, counts["answerable"])
    return Report(
        answerable=counts["answerable"],
        unanswerable=counts["unanswerable"],
        retrieved=counts["retrieved"] / answerable,
        cited=counts["cited"] / answerable,
        contained=counts["contained"] / answerable,
        wrongly_declined=counts["wrongly_declined"] / answerable,
        rightly_declined=counts["rightly_declined"] / max(1, counts["unanswerable"]),
        tiers=dict(tiers),
        p50_ms=statistics.median(times),
    )


def main() -> None:
    """The command line. The report goes to standard output as JSON, progress to standard error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--collection", type=Path, required=True, help="folder of squad-v2-dev")
    parser.add_argument("--retrieve-url", required=True)
    parser.add_argument("--generate-url", required=True)
    parser.add_argument("--corpus", default="squad-v2-dev")
    parser.add_argument("--model", default="auto", choices=["auto", "utility", "reasoning"])
    parser.add_argument("--count", type=int, default=100, help="questions of each kind")
    chosen = parser.parse_args()

    documents = list(rows(chosen.collection / "corpus.jsonl"))
    titles = {row["_id"]: row["title"] for row in documents}
    asked = [
        one
        for kind in questions(chosen.collection, titles)
        for one in sample(kind, titles, chosen.count)
    ]
    key = Settings().api_key
    headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    with httpx.Client(timeout=600, headers=headers) as client:
        load(client, chosen.retrieve_url.rstrip("/"), chosen.corpus, documents)
        report = measure(
            client, chosen.generate_url.rstrip("/"), chosen.corpus, chosen.model, asked
        )
    print(json.dumps(asdict(report), indent=2))


if __name__ == "__main__":
    main()
