"""Scoring a window by late interaction: block sizes and BLAS threads compared.

    python -m tests.bench.window [--documents 50] [--rounds 40]

Random unit vectors of the shape of a window: documents of 100 to 184 tokens, whole and pooled to a
third, against a query of 12. All variants run in turn in every round; the time is the median over
the rounds. After a product on two threads the second one spins for a while, so that processor time
would say nothing here.
"""

import argparse
import statistics
import time
from itertools import product

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits

from services.rerank.models.late_interaction import max_sim
from services.rerank.models.pooling import FACTOR
from services.rerank.models.token_cache import TokenVectors

DIMENSION = 384
QUERY_TOKENS = 12
BLOCKS = (256, 1024, 4096, 16_384)  # the last is one product for all
BLAS_THREADS = (1, 2)


def units(random: np.random.Generator, tokens: int) -> NDArray[np.float32]:
    """Unit vectors, float32 [tokens, DIMENSION]."""
    vectors = random.standard_normal((tokens, DIMENSION)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def main() -> None:
    """Run every variant in turn, many times, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    query = units(random, QUERY_TOKENS)
    lengths = random.integers(100, 185, options.documents)
    texts = {
        name: [units(random, int(length) // factor) for length in lengths]
        for name, factor in (("all", 1), ("pooled", FACTOR))
    }
    kept = {
        name: [TokenVectors.of(one, len(one), 0) for one in vectors]
        for name, vectors in texts.items()
    }
    variants = list(product(kept, BLAS_THREADS, BLOCKS))
    taken: dict[tuple[str, int, int], list[float]] = {variant: [] for variant in variants}
    for _ in range(options.rounds):
        for name, threads, block in variants:
            with threadpool_limits(threads, "blas"):
                started = time.perf_counter()
                max_sim(query, kept[name], block)
                taken[name, threads, block].append((time.perf_counter() - started) * 1000)
    table = Table("token vectors", "KB a document", "BLAS threads", "vectors in a block", "ms")
    for (name, threads, block), times in taken.items():
        size = statistics.mean(document.nbytes for document in kept[name]) / 1024
        milliseconds = f"{statistics.median(times):.2f}"
        table.add_row(name, f"{size:.1f}", str(threads), str(block), milliseconds)
    Console().print(table)


if __name__ == "__main__":
    main()
