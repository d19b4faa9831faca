"""What the encoder's precision costs: cosine to fp32 over real texts, and nDCG@10 of dense search.

    python -m tests.bench.fidelity DIR:SPLIT... [--way "int8, a scale per token"] [--texts 1000]

DIR is a collection in BEIR layout, SPLIT the queries to ask (`train`, `dev`). Compared to the fp32
graph are the arithmetics of `tests.bench.encoder` whose names begin with a `--way` (may be given
again). The cosine is over titles and pieces of documents, taken evenly from the collections. The
search is exact, over documents as title and text, cut to the model's window; per query the
difference to fp32 gives the standard error.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import ir_measures
import numpy as np
from ir_measures import nDCG
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from shared.cli.collection import Collection, read_collection
from shared.encoder.session import Vectors
from shared.encoder.tokenizer import TextTokenizer, Tokenized
from shared.modelstore.store import ModelStore
from shared.settings import Settings
from tests.bench.encoder import Contender, contenders
from tests.bench.peers.contenders import MODEL
from tests.bench.peers.texts import mixed

EXACT = "fp32 (shipped)"
SHIPPED = "int8, a scale per token"
MEASURE = nDCG @ 10
BATCH = 32
FOUND = 10  # documents that the measure looks at


def embed(way: Contender, texts: Sequence[Tokenized]) -> Vectors:
    """Unit vectors, float32 [n, d]; texts of like lengths go together."""
    order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
    vectors = np.concatenate(
        [
            way.embed([texts[place] for place in order[first : first + BATCH]])
            for first in range(0, len(order), BATCH)
        ]
    )
    in_order = np.empty_like(vectors)
    in_order[order] = vectors
    return in_order


def scores(way: Contender, tokenizer: TextTokenizer, collection: Collection) -> NDArray[np.float64]:
    """nDCG@10 of each query of the collection, in the order of their ids, float64 [q]."""
    names = sorted(collection.queries)
    pages = [f"{one.title}\n{one.text}".strip() for one in collection.documents]
    documents = embed(way, tokenizer.tokenize(pages))
    asked = embed(way, tokenizer.tokenize([collection.queries[name] for name in names]))
    run: dict[str, dict[str, float]] = {}
    for name, cosines in zip(names, asked @ documents.T, strict=True):
        best = np.argsort(-cosines, kind="stable")[:FOUND]
        run[name] = {collection.documents[place].id: float(cosines[place]) for place in best}
    found = {
        one.query_id: one.value for one in ir_measures.iter_calc([MEASURE], collection.qrels, run)
    }
    return np.array([found.get(name, 0.0) for name in names])


def rows(
    ways: dict[str, Contender],
    tokenizer: TextTokenizer,
    texts: Sequence[str],
    collections: Sequence[Collection],
) -> Iterator[list[str]]:
    """A row for each way; fp32 first."""
    tokenized = tokenizer.tokenize(texts)
    exact = embed(ways[EXACT], tokenized)
    baseline: list[NDArray[np.float64]] = []
    for name, way in ways.items():
        print(name, file=sys.stderr)
        cosines = (embed(way, tokenized) * exact).sum(axis=1)
        row = [name, f"{cosines.mean():.5f}", f"{cosines.min():.5f}"]
        for place, collection in enumerate(collections):
            found = scores(way, tokenizer, collection)
            if name == EXACT:
                baseline.append(found)
            gain = found - baseline[place]
            error = gain.std(ddof=1) / len(gain) ** 0.5
            row.append(f"{found.mean():.4f} ({gain.mean():+.4f} ± {error:.4f})")
        yield row


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("collections", nargs="+", metavar="DIR:SPLIT")
    parser.add_argument("--way", action="append", help=f"begin of a name; default {SHIPPED!r}")
    parser.add_argument("--texts", type=int, default=1000)
    parser.add_argument("--documents", type=int, help="of a collection, the first; default all")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    model = ModelStore(Settings().models_dir).require(MODEL).path
    tokenizer = TextTokenizer(model)
    wanted = (EXACT, *(options.way or [SHIPPED]))
    ways = {
        name: way
        for name, way in contenders(model, tokenizer, options.threads)
        if name.startswith(wanted)
    }
    places = [place.rpartition(":") for place in options.collections]
    collections = [read_collection(Path(folder), split) for folder, _, split in places]
    if options.documents is not None:
        for collection in collections:
            del collection.documents[options.documents :]
    share = -(-options.texts // len(places))
    texts = [text for folder, _, _ in places for text in islice(mixed(Path(folder)), share)]
    names = [f"{Path(folder).name} {split}: nDCG@10 (to fp32)" for folder, _, split in places]
    table = Table("arithmetic", f"cosine, mean of {len(texts)}", "least", *names)
    for row in rows(ways, tokenizer, texts, collections):
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
