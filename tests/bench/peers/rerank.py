"""rerank beside a cross-encoder of the same size: 50 passages of 150 tokens, cold and warm.

    python -m tests.bench.peers.rerank FOLDER [--rounds 7] [--threads 2]

FOLDER is a collection in BEIR layout. The peer is sentence-transformers' CrossEncoder in fp32 over
the body of the same model, with a head of random weights: its time does not depend on them. It is
called bare, in a process of its own; refdesk is asked over HTTP. Both are on the same cores, and
sleep while the other is measured. Cold: every round has passages that were never seen. Warm: other
queries about the same passages; a cross-encoder has to read them again.
"""

import argparse
import http.client
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.bench.peers.contenders import MODEL, Contender, Contenders
from tests.bench.peers.texts import passages, queries

PASSAGES, TOKENS = 50, 150
WARM = 20  # queries about passages that were read, in a round


def ask(url: str, path: str, query: str, documents: Sequence[str]) -> tuple[float, Any]:
    """Seconds until the answer is here, and the answer. Ends the program unless it is a success."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    connection.connect()
    body = json.dumps({"query": query, "documents": documents})
    started = time.perf_counter()
    connection.request("POST", path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    data = response.read()
    seconds = time.perf_counter() - started
    connection.close()
    if response.status != 200:
        sys.exit(f"{url}{path}: {response.status} {data[:300]!r}")
    return seconds, json.loads(data)


def cross_encoder_folder(model: Path, folder: Path) -> Path:
    """The model's body with a head of random weights and one score, and its tokenizer."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    body = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    body.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


def measure(
    ours: Contender, peer: Contender, documents: list[str], asked: list[str]
) -> tuple[float, list[float], float]:
    """Seconds of one round: refdesk cold, refdesk warm (each query), the peer."""
    first, *others = asked
    with ours.awake() as url:
        ask(url, "/rerank", "is anyone awake?", ["yes"])
        cold, _ = ask(url, "/rerank", first, documents)
        warm = [ask(url, "/rerank", query, documents)[0] for query in others]
    with peer.awake() as url:
        _, seconds = ask(url, "/bare", first, documents)
    return cold, warm, float(seconds)


def main() -> None:
    """Measure, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="and cores, for each")
    options = parser.parse_args()
    model = ModelStore(Settings().models_dir).require(MODEL).path
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    texts, asked = passages(options.folder, tokenizer, TOKENS), queries(options.folder)
    cold, warm, peer = [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Contenders(Path(folder), options.threads) as contenders,
    ):
        body = cross_encoder_folder(model, Path(folder) / "cross-encoder")
        ours = contenders.service("refdesk", "rerank", Path(folder) / "data")
        theirs = contenders.worker("CrossEncoder", "cross-encoder", body, batch=32)
        for number in range(-1, options.rounds):
            window = list(islice(texts, PASSAGES))
            seconds = measure(ours, theirs, window, list(islice(asked, 1 + WARM)))
            if number >= 0:  # before, each loads and lays out its weights
                cold.append(seconds[0])
                warm += seconds[1]
                peer.append(seconds[2])
    first, again, other = map(statistics.median, (cold, warm, peer))
    table = Table(f"{PASSAGES} passages of {TOKENS} tokens", "p50", "by round")
    table.add_row("refdesk, cold", f"{first:.2f} s", _list(cold))
    table.add_row("refdesk, warm", f"{again * 1000:.1f} ms", f"{len(warm)} queries")
    table.add_row("sentence-transformers CrossEncoder", f"{other:.2f} s", _list(peer))
    Console(width=130).print(
        table,
        f"cold: {first / other:.2f} of the peer's time (asked: ≤ 1.0 s and ≤ 0.5); warm: ≤ 15 ms",
    )


def _list(seconds: Sequence[float]) -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)


if __name__ == "__main__":
    main()
