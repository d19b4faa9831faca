"""How well the suite answers SQuAD 2.0, and how often it admits that the sources do not answer.

    python -m tests.quality.squad_baseline --collection DIR --retrieve-url URL --generate-url URL

It loads the collection's paragraphs into a corpus of running services, asks 100 answerable and 100
unanswerable questions over HTTP, and prints how often

* the passage that holds the answer is among the retrieved, and among the cited ones;
* a reference answer stands in the text;
* an answerable question is declined, and an unanswerable one is.

The questions are about the articles that nothing was tuned on, see extractive.py, which measures
the extractive writer alone, on more of them.
"""

import argparse
import json
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx

from shared.settings import Settings
from tests.quality.extractive import load
from tests.quality.squad import Question, is_tuning, questions, sample


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

    reported = [one for one in questions(chosen.collection) if not is_tuning(one.article)]
    asked = [
        one
        for answerable in (True, False)
        for one in sample([q for q in reported if bool(q.answers) == answerable], chosen.count)
    ]
    key = Settings().api_key
    headers = {"authorization": f"Bearer {key.get_secret_value()}"} if key else {}
    with httpx.Client(timeout=600, headers=headers) as client:
        load(client, chosen.retrieve_url.rstrip("/"), chosen.corpus, chosen.collection)
        report = measure(
            client, chosen.generate_url.rstrip("/"), chosen.corpus, chosen.model, asked
        )
    print(json.dumps(asdict(report), indent=2))


if __name__ == "__main__":
    main()
