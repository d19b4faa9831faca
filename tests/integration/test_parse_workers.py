"""A file that hangs, eats memory or crashes its parser costs itself alone."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from services.retrieve.corpus.parsing.parse import Parsed
from services.retrieve.corpus.parsing.workers import Workers
from shared.errors import ApiError
from tests.files import FILES
from tests.parse_work import crash, defect, double, eat, flood, hang, read, refuse, surroundings

REPOSITORY = Path(__file__).parents[2]


@pytest_asyncio.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(2, 512)
    yield made
    await made.close()


async def code(workers: Workers, work: object, seconds: float = 30) -> str:
    with pytest.raises(ApiError) as failure:
        await workers.run(work, 3, seconds=seconds, param="files.7")  # type: ignore[arg-type]
    assert (failure.value.status, failure.value.param) == (422, "files.7")
    return failure.value.code


async def test_what_goes_wrong_costs_itself_alone(workers: Workers) -> None:
    beside = asyncio.gather(
        *(workers.run(double, n, seconds=30, param="x") for n in range(20)),
    )
    assert await code(workers, hang, seconds=0.5) == "file_too_slow"
    assert await code(workers, eat) == "file_too_large"
    assert await code(workers, crash) == "file_crashes_parser"
    assert await code(workers, defect) == "file_crashes_parser"
    assert await code(workers, refuse) == "no_text"
    assert await beside == [2 * n for n in range(20)]
    assert await workers.run(double, 4, seconds=30, param="x") == 8


async def test_a_result_may_be_too_large(workers: Workers) -> None:
    roomy = Workers(1, 2048)
    with pytest.raises(ApiError) as failure:
        await roomy.run(flood, 300, seconds=30, param="files.0")
    await roomy.close()
    assert failure.value.code == "file_too_large"


async def test_a_cancelled_piece_of_work_is_killed_and_the_next_one_done(workers: Workers) -> None:
    one = Workers(1, 512)
    task = asyncio.ensure_future(one.run(hang, 1, seconds=60, param="x"))
    await asyncio.sleep(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await one.run(double, 1, seconds=30, param="x") == 2
    await one.close()


async def test_a_process_has_none_of_the_services_sockets_and_keys(
    workers: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REFDESK_SERVICE_KEY", "secret")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    process, parent, environment, links = await workers.run(surroundings, 0, seconds=30, param="x")
    server.close()
    assert parent == os.getpid() != process
    assert not [name for name in environment if name.startswith("REFDESK")]
    # At most the two pipes to the service: an event loop's pipes may be pairs of sockets.
    assert len([link for link in links if link.startswith("socket:")]) <= 2


async def test_processes_are_used_again_and_end_when_closed() -> None:
    one = Workers(1, 512)
    first = (await one.run(surroundings, 0, seconds=30, param="x"))[0]
    assert (await one.run(surroundings, 0, seconds=30, param="x"))[0] == first
    await one.close()
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)


def test_processes_end_with_a_service_that_is_killed() -> None:
    script = (
        "import asyncio, os, time\n"
        "from services.retrieve.corpus.parsing.workers import Workers\n"
        "async def main():\n"
        "    one = Workers(1, 512)\n"
        "    print(await one.run(os.getpgid, 0, seconds=60, param='x'), flush=True)\n"
        "    await one.run(time.sleep, 600, seconds=600, param='x')\n"
        "asyncio.run(main())\n"
    )
    service = subprocess.Popen(
        [sys.executable, "-c", script], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert service.stdout is not None
    worker = int(service.stdout.readline())
    service.send_signal(signal.SIGKILL)
    service.wait()
    for _ in range(100):
        if not _runs(worker):
            return
        time.sleep(0.1)
    pytest.fail("the process outlives its service")


def _runs(process: int) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture(scope="module")
def reader() -> Iterator[Callable[[str, bytes], Parsed]]:
    """Reads a file in a process that lives on."""
    with asyncio.Runner() as runner:
        workers = Workers(1, 1024)
        yield lambda name, data: runner.run(
            workers.run(read, (name, data), seconds=30, param="files.0")
        )
        runner.run(workers.close())


@pytest.mark.parametrize("name", [*FILES, "a.html", "a.md", "a.csv", "a.json", "a.py"])
def test_a_damaged_file_gives_a_document_or_an_error(
    reader: Callable[[str, bytes], Parsed], name: str
) -> None:
    whole = FILES[name]() if name in FILES else (REPOSITORY / "docs/index.md").read_bytes()

    @settings(max_examples=25)
    @given(seed=st.integers(0, 2**32), cut=st.booleans(), flips=st.integers(0, 30))
    def try_it(seed: int, cut: bool, flips: int) -> None:
        chance = random.Random(seed)
        data = bytearray(whole[: chance.randrange(len(whole))] if cut else whole)
        for _ in range(flips if data else 0):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        try:
            parsed = reader(name, bytes(data))
        except ApiError as error:
            assert error.status in (415, 422)  # noqa: PT017 - one of two ends
            assert error.code != "file_crashes_parser", error.message  # noqa: PT017
        else:
            assert parsed.text

    try_it()


async def test_work_that_is_done_when_all_is_closed_is_told_so_and_ends() -> None:
    two = Workers(2, 512)
    assert await two.run(double, 1, seconds=30, param="x") == 2
    tasks = [asyncio.ensure_future(two.run(hang, 1, seconds=60, param="x")) for _ in range(3)]
    await asyncio.sleep(1)
    await two.close()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [one.code for one in found if isinstance(one, ApiError)] == ["parser_unavailable"] * 3
