"""Scoring a window by late interaction: block sizes and BLAS threads compared.

    python -m tests.bench.window [--documents 50] [--rounds 40]

Random unit vectors of the shape of a window: documents of 100 to 184 tokens against a query of 12.
All variants run in turn in every round. Milliseconds of one scoring: the median over the rounds of
elapsed time and of processor time, that of all threads together.
"""

import argparse
import statistics
import time

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from services.rerank.models import late_interaction
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
    documents = [TokenVectors.of(units(random, int(length))) for length in lengths]
    elapsed: dict[tuple[int, int], list[float]] = {}
    processor: dict[tuple[int, int], list[float]] = {}
    for _ in range(options.rounds):
        for threads in BLAS_THREADS:
            with threadpool_limits(threads, "blas"):
                for block in BLOCKS:
                    late_interaction._BLOCK_TOKENS = block
                    wall, cpu = time.perf_counter(), time.process_time()
                    late_interaction.max_sim(query, documents)
                    key = (threads, block)
                    elapsed.setdefault(key, []).append((time.perf_counter() - wall) * 1000)
                    processor.setdefault(key, []).append((time.process_time() - cpu) * 1000)
    table = Table("BLAS threads", "tokens in a block", "elapsed ms", "CPU ms")
    for key, values in elapsed.items():
        times = [statistics.median(values), statistics.median(processor[key])]
        cells = [*map(str, key), *(f"{milliseconds:.2f}" for milliseconds in times)]
        table.add_row(*cells)
    Console().print(table)


if __name__ == "__main__":
    main()
