"""Candidates for the dense arm from a GPU, where the installed FAISS is built for one.

Flat, and so exact, up to 16 GiB of vectors, in lists of one byte a number above it.
What FAISS can't do there is made up for here: a removed vector stays until the next build, a filter
is applied to what was found, and all that a GPU does is done by one thread at a time.
"""

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from services.retrieve.stores.base import Vector
from services.retrieve.stores.local.dense_lists import list_count
from services.retrieve.stores.local.dense_rows import Keys
from shared.errors import StartupError
from shared.settings import Device

Place = Callable[["faiss.Index"], "faiss.Index"]  # puts an index on the GPU

_FLAT_BYTES = 16 * 2**30  # 11 million vectors of 384 numbers
_MOST = 2048  # results that FAISS gives from a GPU

# An index on a GPU is not safe to use from two threads even for reading, and all corpora share one
# StandardGpuResources, which is not either:
# https://github.com/facebookresearch/faiss/wiki/Threads-and-asynchronous-calls. Held in `__del__`
# too, which may come while the thread has it already.
_ALONE = threading.RLock()


def gpu(device: Device) -> Place | None:
    """What puts an index on the GPU, or None where the CPU is to search.

    Raises StartupError where `cuda` is wanted and there is none, or FAISS is not built for it.
    """
    if device == "cpu":
        return None
    built = hasattr(faiss, "StandardGpuResources")
    count = faiss.get_num_gpus() if built else 0
    if count:
        resources = faiss.StandardGpuResources()
        return lambda index: faiss.index_cpu_to_gpu(resources, 0, index)
    if device == "auto":
        return None
    raise StartupError(
        "REFDESK_DENSE_DEVICE=cuda: "
        + (
            "FAISS finds no GPU: check the driver, or set it to auto"
            if built
            else "the installed FAISS is for the CPU: install faiss-gpu-cu12 in the place of "
            "faiss-cpu, or set it to auto"
        )
    )


class OnGpu:
    """Vectors by key on a GPU. Searches may come from any thread, and wait for one another; a
    change waits for the search that runs, in this index or another.

    end: every vector with a key below it has been added.
    """

    def __init__(self, place: Place, sample: Vector, vectors: int) -> None:
        """Empty, for so many vectors of which `sample`, float32 [n, d], is a part."""
        dimension = sample.shape[1]
        self.end = 0
        self._probes = 0
        self._index: Any = None
        if 4 * vectors * dimension <= _FLAT_BYTES:
            with _ALONE:
                self._index = faiss.IndexIDMap(place(faiss.IndexFlatIP(dimension)))
        else:
            lists = list_count(vectors)
            self._probes = min(lists, round(10 * math.sqrt(lists)))
            index = faiss.index_factory(dimension, f"IVF{lists},SQ8", faiss.METRIC_INNER_PRODUCT)
            with _ALONE:
                self._index = place(index)
                self._index.train(np.ascontiguousarray(sample))

    def __del__(self) -> None:
        """Give the GPU's memory back."""
        if not sys.is_finalizing():  # who held the lock then will never let go of it
            with _ALONE:
                self._index = None

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def method(self) -> str:
        """What `explain` says."""
        return f"gpu ivf-sq8, probes {self._probes}, rescored" if self._probes else "gpu exact"

    def add(self, keys: Keys, vectors: Vector) -> None:
        """Add vectors float32 [n, d]."""
        with _ALONE:
            self._index.add_with_ids(np.ascontiguousarray(vectors), np.ascontiguousarray(keys))

    def search(self, vector: Vector, count: int, allowed: Keys | None) -> Keys:
        """The keys of vectors near to `vector`, in no order, of `allowed` where given."""
        # FAISS' stubs don't know the keyword arguments that its Python layer adds.
        parameters = faiss.SearchParametersIVF(nprobe=self._probes) if self._probes else None  # type: ignore[call-arg]
        wanted = min(_MOST, len(self), 3 * count if allowed is None else _MOST)
        with _ALONE:
            _, keys = self._index.search(vector.reshape(1, -1), wanted, params=parameters)
        found: Keys = keys[0][keys[0] >= 0]
        return found if allowed is None else found[np.isin(found, allowed)]
