"""Indexes of collections, kept between evaluations so that they are embedded once.

eval/<collection>-<hash>/corpora/   a data folder of its own for the retrieve service
eval/<collection>-<hash>/.lock      held by flock as long as an evaluation uses it

The hash is over the documents and all that their chunks and vectors depend on. Nothing marks an
index as complete: documents are counted, and those that a killed run left out are stored then.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from shared import __version__
from shared.cli.collection import Collection, corpus_name
from shared.modelstore.store import ModelStore
from shared.settings import Settings

_BETWEEN_TRIES_S = 0.2


def cache_folder(settings: Settings, collection: Collection) -> Path:
    """Where the index of `collection` under these settings is kept.

    Raises StartupError where the embedding model is not in the store.
    """
    revision = settings.embed_remote_url
    if settings.embed_backend != "remote":
        revision = ModelStore(settings.models_dir).require(settings.embed_model).revision
    made_by = (
        __version__,
        collection.digest,
        settings.embed_model,
        revision,
        settings.embed_backend,
        settings.embed_precision,
        str(settings.chunk_tokens),
        str(settings.chunk_overlap),
    )
    key = hashlib.sha256("\0".join(made_by).encode()).hexdigest()[:12]
    name = corpus_name(collection).removeprefix("eval-").rpartition("-")[0]
    return settings.data_dir / "eval" / f"{name}-{key}"


@contextmanager
def held(folder: Path, console: Console) -> Iterator[None]:
    """Have `folder`, which is made if there is none, for this process alone.

    Waits while another evaluation has it, and says so: both would measure each other's load.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a+b") as file:
        told = False
        while not _locked(file.fileno()):
            if not told:
                file.seek(0)
                owner = file.read(32).decode("ascii", "replace").strip() or "unknown"
                console.print(
                    f"waiting for process {owner}, which evaluates the same collection",
                    markup=False,
                )
                told = True
            time.sleep(_BETWEEN_TRIES_S)
        file.truncate(0)
        file.write(f"{os.getpid()}\n".encode())
        file.flush()
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def size_bytes(folder: Path) -> int:
    """The bytes of all files in `folder`; those that go while it is counted are left out."""
    size = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                size += (Path(parent) / name).stat().st_size
            except FileNotFoundError:
                continue
    return size
