"""kill -9 of a process that writes, at random moments: what was answered is there, nothing is half.

A write that was on its way when the process died may have taken effect or not, but wholly.
"""

import multiprocessing
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.stores.base import CorpusStore
from services.retrieve.stores.corpus import CorpusSpec
from tests.corpora import STAMP, vector_of
from tests.integration import local_store_writer
from tests.integration.local_store_writer import NAMES, texts

SEED = 20
# Each writer is a fork of one process that has imported everything, and opened nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([local_store_writer.__name__])


def write_until_killed(
    folder: Path, seed: int, first: int, seconds: float
) -> list[dict[str, int | None]]:
    """Run the writer, kill it that long after its first write; the writes that it told of."""
    told_by, told_to = PROCESSES.Pipe(duplex=False)
    work = (folder, seed, first, told_to)
    process = PROCESSES.Process(target=local_store_writer.main, args=work)
    process.start()
    told_to.close()
    told: list[dict[str, int | None]] = []
    with told_by, suppress(EOFError, OSError):
        told.append(told_by.recv())
        time.sleep(seconds)
        process.kill()
        while True:
            told.append(told_by.recv())
    process.join()
    assert process.exitcode == -signal.SIGKILL
    return told


def version_of(store: CorpusStore, name: str) -> int | None:
    """The version of a document that is there; fails unless it is whole, in every part."""
    stored = store.document(name)
    if stored is None:
        return None
    version = int(stored.text.split()[0].removeprefix(f"{name}v"))
    expected = texts(name, version)
    assert stored.text == "\n".join(expected)
    by_words = store.fetch([key for key, _ in store.bm25(f"{name}v{version}", 50)])
    assert [record.text for record in by_words.values()] == expected
    for text in expected:
        key, cosine = store.dense(vector_of(text), 1)[0]
        assert store.fetch([key])[key].text == text
        assert cosine == pytest.approx(1.0, abs=1e-5)
    return version


@pytest.mark.parametrize("kills", [8, pytest.param(150, marks=pytest.mark.long)])
def test_every_answered_write_survives_and_no_document_is_half_there(
    tmp_path: Path, kills: int
) -> None:
    folder = tmp_path / "corpora"
    catalog = Catalog.open(folder)
    catalog.create(CorpusSpec("c"), STAMP)
    catalog.close()
    chance = random.Random(SEED)
    expected: dict[str, int | None] = dict.fromkeys(NAMES)
    answered = 0
    for turn in range(kills):
        first = 1 + turn * 100_000
        told = write_until_killed(folder, SEED + turn, first, chance.uniform(0, 0.2))
        answered += len(told)
        for done in told:
            expected |= done
        catalog = Catalog.open(folder)
        store = catalog.get("c")
        found = {name: version_of(store, name) for name in NAMES}
        # At most the one write that was not answered any more may differ.
        changed = {name for name in NAMES if found[name] != expected[name]}
        versions = {found[name] for name in changed}
        assert len(versions) <= 1
        if changed:
            assert versions in ({None}, {first + len(told)})
        assert store.info.documents == sum(version is not None for version in found.values())
        assert len(store.bm25("part", 1000)) == store.info.chunks
        catalog.close()
        expected = dict(found)
    assert answered > kills
