"""The cache of vectors, in memory and on disk: its limits, and what a bad disk does to it."""

import gc
import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import structlog.testing
from structlog.typing import EventDict

from services.embed import disk_cache
from services.embed.disk_cache import FAILURES, FILE, DiskCache
from services.embed.memory_cache import Known, MemoryCache
from shared.settings import Settings
from tests.fulldisk import files_no_longer_than

MIB = 1024 * 1024
DIMENSION = 384
NOISE = np.random.default_rng(7).standard_normal(4096, np.float32)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def known(number: int, dimension: int = DIMENSION) -> Known:
    """Something to keep that can be told from all others."""
    vector = np.resize(NOISE, dimension)
    vector[0] = number
    return Known(vector, tokens=number % 256, cut=number % 7)


def many(first: int, last: int, dimension: int = DIMENSION) -> dict[bytes, Known]:
    return {key(number): known(number, dimension) for number in range(first, last)}


def same(one: Known | None, other: Known) -> bool:
    return (
        one is not None
        and one.vector.tobytes() == other.vector.tobytes()
        and (one.tokens, one.cut) == (other.tokens, other.cut)
    )


def test_what_is_kept_in_memory_comes_back_to_the_bit() -> None:
    cache = MemoryCache(MIB)
    cache.put(key(1), known(1))
    assert same(cache.get(key(1)), known(1))
    assert cache.get(key(2)) is None


def test_memory_costs_no_more_than_its_limit_whatever_comes() -> None:
    gc.collect()
    tracemalloc.start()
    try:
        cache = MemoryCache(2 * MIB)
        one = known(0)
        for number in range(2_500):
            cache.put(key(number), one)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert cache.nbytes <= 2 * MIB
    assert peak <= 2 * MIB
    assert sum(cache.get(key(number)) is not None for number in range(2_500)) > 1000


def test_vectors_of_all_dimensions_share_the_limit() -> None:
    cache = MemoryCache(MIB)
    numbers = np.random.default_rng(7).integers(1, 3000, 2000)
    for number, dimension in enumerate(map(int, numbers)):
        cache.put(key(number), known(number, dimension))
        assert cache.nbytes <= MIB
    found = {number: one for number in range(2000) if (one := cache.get(key(number)))}
    assert len(found) > 80
    assert min(found) == 2000 - len(found)  # the last ones
    for number, one in found.items():
        assert same(one, known(number, int(numbers[number])))
    cache.put(key(0), known(0, MIB))  # larger than the cache
    assert cache.get(key(0)) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryCache(MIB)
    first = 0
    number = 1
    cache.put(key(first), known(first))
    while cache.get(key(first)) is not None and number < 2000:
        cache.put(key(number), known(number))  # and the first was just asked for
        number += 1
    assert number == 2000
    assert cache.get(key(1)) is None
    assert same(cache.get(key(1999)), known(1999))


def test_a_vector_that_was_handed_out_stays_as_it_was() -> None:
    cache = MemoryCache(2100)  # room for one
    cache.put(key(1), known(1))
    handed_out = cache.get(key(1))
    cache.put(key(2), known(2))
    assert same(handed_out, known(1))
    assert cache.get(key(1)) is None


def test_no_memory_keeps_nothing() -> None:
    cache = MemoryCache(0)
    cache.put(key(1), known(1))
    assert (cache.get(key(1)), cache.nbytes) == (None, 0)


@pytest.fixture
def events() -> Iterator[list[EventDict]]:
    """What is logged; in memory, because a limit on files holds for the log's file, too."""
    with structlog.testing.capture_logs() as captured:
        yield captured


def opened(folder: Path, limit: int = 64 * MIB) -> DiskCache:
    return DiskCache(folder, limit)


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def wrong(found: dict[bytes, Known], kept: dict[bytes, Known]) -> list[bytes]:
    return [key for key, one in found.items() if not same(one, kept[key])]


def test_a_restart_finds_what_was_kept_to_the_bit(tmp_path: Path) -> None:
    kept = many(0, 200)
    cache = opened(tmp_path / "a" / "b")
    cache.put(kept)
    cache.close()
    found = opened(tmp_path / "a" / "b").get([*kept, key(999)])
    assert found.keys() == kept.keys()
    assert not wrong(found, kept)


def test_only_the_owner_may_read_the_files(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    cache.put(many(0, 5))
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("dimension", [128, 4096])
def test_the_files_never_pass_the_limit_and_the_youngest_stay(
    tmp_path: Path, dimension: int
) -> None:
    cache = opened(tmp_path, 16 * MIB)
    step = 24 * MIB // (10 * (4 * dimension + 200))
    for part in range(10):
        kept = many(part * step, (part + 1) * step, dimension)
        cache.put(kept)
        assert size(tmp_path) <= 16 * MIB
        found = cache.get(list(kept))
        assert found.keys() == kept.keys()
        assert not wrong(found, kept)
    assert 6 * MIB < cache.nbytes <= 16 * MIB
    assert not cache.get(list(many(0, 20, dimension)))


def test_what_is_found_again_outlives_what_is_not(tmp_path: Path) -> None:
    cache = opened(tmp_path, 16 * MIB)
    asked, unasked = many(0, 50), many(50, 100)
    cache.put(asked | unasked)
    for first in range(1000, 13_000, 1000):
        cache.put(many(first, first + 1000))
        assert len(cache.get(list(asked))) == 50
        assert size(tmp_path) <= 16 * MIB
    assert not wrong(cache.get(list(asked)), asked)
    assert not cache.get(list(unasked))


def test_a_lower_limit_is_obeyed_after_a_restart(tmp_path: Path) -> None:
    cache = opened(tmp_path, 64 * MIB)
    cache.put(many(0, 14_000))
    cache.close()
    assert size(tmp_path) > 20 * MIB
    cache = opened(tmp_path, 16 * MIB)
    assert size(tmp_path) <= 16 * MIB
    kept = many(13_900, 14_000)
    assert not wrong(cache.get(list(kept)), kept)
    assert len(cache.get(list(kept))) == 100


def test_services_share_a_folder(tmp_path: Path) -> None:
    one, other = opened(tmp_path), opened(tmp_path)
    one.put(many(0, 10))
    other.put(many(5, 20))
    assert len(one.get(list(many(0, 20)))) == len(other.get(list(many(0, 20)))) == 20


def test_a_folder_that_another_holds_is_still_read(
    tmp_path: Path, events: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "_WAIT_S", 0.1)
    kept = many(0, 10)
    cache = opened(tmp_path)
    cache.put(kept)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    cache.put(many(10, 400))
    assert cache.get(list(many(0, 400))).keys() == kept.keys()
    other.execute("ROLLBACK")
    other.close()
    assert [event["operation"] for event in events] == ["write"]
    cache.put(many(10, 400))
    assert len(cache.get(list(many(0, 400)))) == 400


@pytest.mark.parametrize(
    "damage",
    [
        "vector = (SELECT vector FROM vectors WHERE age = 2)",
        "vector = zeroblob(length(vector))",
        "vector = zeroblob(8)",
        "vector = 'text'",
        "key = zeroblob(32)",
        "tokens = tokens + 1",
        "cut = 'none'",
        "checksum = zeroblob(8)",
    ],
)
def test_a_damaged_row_is_a_miss_and_is_replaced(
    tmp_path: Path, damage: str, events: list[EventDict]
) -> None:
    kept = many(1, 4)
    cache = opened(tmp_path)
    cache.put(kept)
    with sqlite3.connect(tmp_path / FILE) as db:
        db.execute(f"UPDATE vectors SET {damage} WHERE age = 1")
    db.close()
    for _ in range(2):
        found = cache.get([*kept, bytes(32)])
        assert found.keys() == {key(2), key(3)}
        assert not wrong(found, kept)
    assert [event["event"] for event in events] == ["disk_cache_failed"]
    cache.put(kept)
    assert not wrong(cache.get(list(kept)), kept)
    assert len(cache.get(list(kept))) == 3


def test_a_damaged_file_never_gives_a_wrong_vector(tmp_path: Path, events: list[EventDict]) -> None:
    kept = many(0, 60)
    cache = opened(tmp_path)
    cache.put(kept)
    cache.close()
    intact = (tmp_path / FILE).read_bytes()
    dice = np.random.default_rng(7)
    lost = 0
    for start in range(0, len(intact), 2048):
        (tmp_path / FILE).write_bytes(
            intact[:start] + dice.bytes(300) + intact[start + 300 :],
        )
        cache = opened(tmp_path)
        found = cache.get(list(kept))
        assert not wrong(found, kept)
        lost += len(kept) - len(found)
        cache.put(kept)
        assert not wrong(cache.get(list(kept)), kept)
        cache.close()
    assert lost
    assert {event["event"] for event in events} == {"disk_cache_failed"}


def test_a_damaged_schema_costs_the_cache_and_nothing_more(
    tmp_path: Path, events: list[EventDict]
) -> None:
    cache = opened(tmp_path)
    cache.put(many(0, 3))
    cache.close()
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes().replace(b"CREATE TABLE", b"CREATE T\xe9BLE"))
    cache = opened(tmp_path)
    cache.put(many(0, 3))
    assert not cache.get(list(many(0, 3)))
    assert [event["operation"] for event in events] == ["open"]


@pytest.mark.parametrize("content", [b"", b"no database at all, but long enough" * 400])
def test_a_file_of_something_else_costs_the_cache_and_nothing_more(
    tmp_path: Path, content: bytes, events: list[EventDict]
) -> None:
    (tmp_path / FILE).write_bytes(content)
    cache = opened(tmp_path)
    cache.put(many(0, 3))
    found = cache.get(list(many(0, 3)))
    assert len(found) == (0 if content else 3)
    cache.close()
    assert [event["event"] for event in events] == ["disk_cache_failed"] * bool(content)
    assert (tmp_path / FILE).read_bytes().startswith(content)


def test_an_empty_setting_means_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REFDESK_EMBED_CACHE_DIR", "")
    assert Settings().embed_cache_dir is None
    monkeypatch.setenv("REFDESK_EMBED_CACHE_DIR", str(tmp_path))
    assert Settings().embed_cache_dir == tmp_path


def test_a_folder_that_can_not_be_is_told_once(tmp_path: Path, events: list[EventDict]) -> None:
    (tmp_path / "file").touch()
    before = FAILURES.labels("open")._value.get()
    cache = opened(tmp_path / "file" / "folder")
    for _ in range(3):
        cache.put(many(0, 3))
        assert not cache.get(list(many(0, 3)))
    assert cache.nbytes == 0
    cache.close()
    assert FAILURES.labels("open")._value.get() == before + 1
    [event] = events
    assert (event["operation"], event["log_level"]) == ("open", "warning")
    assert str(event["file"]).startswith(str(tmp_path))


@pytest.mark.parametrize("limit", [0, 100, 9000, 20_000, 60_000, 150_000, 400_000])
def test_a_full_disk_costs_new_vectors_alone(
    tmp_path: Path, limit: int, events: list[EventDict]
) -> None:
    old, new = many(0, 20), many(100, 800)
    cache = opened(tmp_path)
    cache.put(old)
    with files_no_longer_than(limit):
        cache.put(new)
        cache.put(new)
        during = cache.get([*old, *new])
    assert not wrong(during, old | new)
    assert [event["operation"] for event in events].count("write") == 1
    cache.put(new)  # there is room again
    after = cache.get([*old, *new])
    assert after.keys() == old.keys() | new.keys()
    assert not wrong(after, old | new)


@pytest.mark.parametrize("limit", [0, 100, 9000, 20_000])
def test_a_disk_that_is_full_from_the_start_costs_the_cache_and_nothing_more(
    tmp_path: Path, limit: int, events: list[EventDict]
) -> None:
    kept = many(0, 100)
    with files_no_longer_than(limit):
        cache = opened(tmp_path)
        cache.put(kept)
        assert not wrong(cache.get(list(kept)), kept)
        cache.close()
    assert {event["event"] for event in events} == {"disk_cache_failed"}
    cache = opened(tmp_path)  # after a restart with room
    cache.put(kept)
    assert len(cache.get(list(kept))) == 100
