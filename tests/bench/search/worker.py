"""One search library in a process of its own, to be measured: built, and then opened and asked.

    python worker.py build ENGINE CORPUS PLACE
    python worker.py serve ENGINE CORPUS PLACE PORT

CORPUS is a folder that tests/bench/search/corpus.py made. `build` reads it, puts it into PLACE as
the library keeps it, and prints the seconds, reading not counted. `serve` opens PLACE in a process
that has never seen the corpus and answers `POST /search {"mode", "queries", "limit"}` with the rows
of the chunks found and the milliseconds of each query, measured around the library's own call: no
HTTP or JSON is in them. Queries go by number; their vectors are given. It runs under the
environment of the library, so nothing of refdesk is imported but for refdesk itself.
"""

import argparse
import json
import os
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from tests.bench.search.engines import ENGINES


def build(engine: str, corpus: Path, place: Path) -> float:
    """Seconds."""
    with (corpus / "chunks.jsonl").open(encoding="utf-8") as lines:
        chunks = [json.loads(line) for line in lines]
    vectors = np.load(corpus / "vectors.npy")
    place.mkdir(parents=True)
    started = time.perf_counter()
    ENGINES[engine](place).build(chunks, vectors)
    return time.perf_counter() - started


def serve(engine: str, corpus: Path, place: Path, port: int) -> None:
    """Open, then answer until stopped, one request at a time."""
    texts = [
        json.loads(line)["text"]
        for line in (corpus.parent / "real" / "queries.jsonl").open(encoding="utf-8")
    ]
    vectors = np.load(corpus.parent / "real" / "queries.npy")
    started = time.perf_counter()
    library = ENGINES[engine](place)
    library.open(corpus)
    opened = time.perf_counter() - started

    def search(asked: dict[str, Any]) -> dict[str, Any]:
        rows, taken = [], []
        for number in asked["queries"]:
            began = time.perf_counter()
            rows.append(
                library.search(asked["mode"], texts[number], vectors[number], asked["limit"])
            )
            taken.append((time.perf_counter() - began) * 1000)
        return {"rows": rows, "ms": taken}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
            kib = next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
            self.answer({"open_s": opened, "resident_mb": kib / 1024})

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            self.answer(search(json.loads(self.rfile.read(size))))

        def answer(self, told: dict[str, Any]) -> None:
            data = json.dumps(told).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    HTTPServer(("127.0.0.1", port), Handler).serve_forever()


def main() -> None:
    """Build or serve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["build", "serve"])
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("place", type=Path)
    parser.add_argument("port", type=int, nargs="?")
    options = parser.parse_args()
    if options.what == "build":
        print(json.dumps(build(options.engine, options.corpus, options.place)))
    else:
        serve(options.engine, options.corpus, options.place, options.port)


if __name__ == "__main__":
    main()
