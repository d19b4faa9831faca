"""How soon an answer is there on one machine with nothing but the embedded parts.

    python -m tests.bench.answers [--rounds 5]

The whole suite runs by `refdesk up` with the handbook as its corpus, and is asked over HTTP, one
question at a time. `extractive`: questions about it, each asked once before, so that embed and
rerank know them; the cache of answers is off. `first token`: the small language model on a route
whose drafts are shown as they are written, with questions long enough for the prompt that is told;
no two have a beginning in common that the model could have kept.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table

from tests.bench.suite import suite
from tests.suite import REPOSITORY

POLICY = """\
version: 1
classes: [open]
default_class: open
models:
  quote: {tier: utility, kind: extractive, price: {input: 0, output: 0}}
  small: {tier: reasoning, kind: configured, price: {input: 0, output: 0}}
tiers:
  utility: {models: [quote]}
  reasoning: {models: [small], checks: light}
compliance: {open: ["*"]}
rules: [{name: all, then: {tier: utility}}]
last_resort: quote
"""
QUESTIONS = (
    "Which port does the rerank service listen on?",
    "What happens when a check of verification fails?",
    "How is a corpus restored from a backup?",
    "What does a signal of the desk say?",
    "Who may read a document that names its readers?",
)
FILLER = "Somebody who works here asks for this, and has read what the handbook says about it. "


def chat(model: str, question: str, **more: object) -> dict[str, object]:
    """A request."""
    return {"model": model, "messages": [{"role": "user", "content": question}], **more}


def extractive(url: str, rounds: int) -> list[float]:
    """Milliseconds of each warm answer."""
    taken = []
    with httpx.Client(timeout=120) as client:
        for turn in range(rounds + 1):
            for question in QUESTIONS:
                started = time.perf_counter()
                client.post(url, json=chat("utility", question)).raise_for_status()
                if turn:
                    taken.append((time.perf_counter() - started) * 1000)
    return taken


def first_tokens(url: str, rounds: int, repeats: int) -> Iterator[tuple[float, float, int]]:
    """Of each answer: milliseconds until its first words and of these the desk's, and the tokens
    of the prompt."""
    with httpx.Client(timeout=120) as client:
        for turn in range(rounds):
            question = f"{turn + 1}. {FILLER * repeats}{QUESTIONS[turn % len(QUESTIONS)]}"
            options = {"include_usage": True}
            request = chat("reasoning", question, stream=True, stream_options=options)
            started = time.perf_counter()
            first, desk, tokens = 0.0, 0.0, 0
            with client.stream("POST", url, json=request) as response:
                for line in response.iter_lines():
                    if not line.startswith("data: {"):
                        continue
                    event = json.loads(line[6:])
                    for choice in event.get("choices") or ():
                        if choice["delta"].get("content") and not first:
                            first = (time.perf_counter() - started) * 1000
                    if "refdesk" in event:
                        desk = event["refdesk"]["timings_ms"]["retrieve"]
                    if event.get("usage"):
                        tokens = event["usage"]["prompt_tokens"]
            yield first, desk, tokens


def main() -> None:
    """Start the suite, load the handbook, measure, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=25, help="of a sentence in a long question")
    options = parser.parse_args()
    table = Table("what", "p50 ms", "most ms", "of")
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy.yaml"
        policy.write_text(POLICY)
        os.environ |= {"REFDESK_POLICY_FILE": str(policy), "REFDESK_ANSWER_CACHE": "off"}
        with suite(Path(folder) / "data") as (_, urls, _):
            load(f"{urls['retrieve']}/corpora/handbook")
            url = f"{urls['generate']}/v1/chat/completions"
            taken = extractive(url, options.rounds)
            most = f"{max(taken):.0f}"
            table.add_row("extractive, warm", f"{statistics.median(taken):.0f}", most, "")
            found = list(first_tokens(url, options.rounds * 2, options.repeats))
            prompts = f"prompts of {min(f[2] for f in found)} to {max(f[2] for f in found)} tokens"
            for what, values in (
                ("small model, first token", [one[0] for one in found]),
                ("the same without the desk", [one[0] - one[1] for one in found]),
            ):
                middle = f"{statistics.median(values):.0f}"
                table.add_row(what, middle, f"{max(values):.0f}", prompts)
    Console().print(table)


def load(corpus: str) -> None:
    """The handbook's pages as documents."""
    docs = REPOSITORY / "docs"
    pages = [
        {"id": str(path.relative_to(docs)), "text": path.read_text(), "title": path.stem}
        for path in sorted(docs.rglob("*.md"))
    ]
    with httpx.Client(timeout=600) as client:
        client.put(corpus, json={}).raise_for_status()
        for page in pages:
            client.post(f"{corpus}/documents", json={"documents": [page]}).raise_for_status()


if __name__ == "__main__":
    main()
