"""Batches keep to their budget, take clients in turns, and forget those who left."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import batching
from shared.auth import LOCAL
from shared.batching import Batcher
from shared.context import Deadline, RequestContext, enter
from shared.errors import ApiError


class Recorder:
    """A model that answers each item with its own text, and waits for `go` before each batch."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started = threading.Semaphore(0)
        self.go = threading.Semaphore(0)

    def __call__(self, batch: Sequence[str]) -> list[str]:
        self.batches.append(list(batch))
        self.started.release()
        self.go.acquire()
        return list(batch)


def batcher(run: Callable[[Sequence[str]], Sequence[str]], **options: int) -> Batcher[str, str]:
    return Batcher("test", run, **{"batch_tokens": 10, "queue_tokens": 1000, **options})


async def started(recorder: Recorder) -> None:
    await asyncio.to_thread(recorder.started.acquire)


async def begun(
    under_test: Batcher[str, str], recorder: Recorder, items: Sequence[str]
) -> asyncio.Task[list[str]]:
    """A request whose first batch the model runs, until it is let go."""
    request = asyncio.create_task(under_test.submit(items))
    await started(recorder)
    return request


@settings(max_examples=50)
@given(
    st.lists(st.lists(st.text("a", min_size=1, max_size=15), max_size=20), max_size=5),
    st.integers(1, 40),
)
def test_every_item_is_answered_in_order_and_no_batch_passes_the_budget(
    requests: list[list[str]], budget: int
) -> None:
    seen: list[list[str]] = []

    def run(batch: Sequence[str]) -> list[str]:
        seen.append(list(batch))
        return [f"{item}!" for item in batch]

    async def main() -> list[list[str]]:
        under_test = batcher(run, batch_tokens=budget, queue_tokens=100_000)
        try:
            return await asyncio.gather(*(under_test.submit(items) for items in requests))
        finally:
            under_test.close()

    results = asyncio.run(main())
    assert results == [[f"{item}!" for item in items] for items in requests]
    assert sum(map(len, seen)) == sum(map(len, requests))
    for batch in seen:
        assert len(batch) == 1 or len(batch) * max(map(len, batch)) <= budget


async def test_a_single_query_waits_for_one_batch_of_a_big_client_at_most() -> None:
    recorder = Recorder()
    under_test = batcher(recorder)
    big = await begun(under_test, recorder, ["aaaaa"] * 10)
    small = asyncio.create_task(under_test.submit(["q"]))
    await asyncio.sleep(0)
    recorder.go.release(100)
    assert await small == ["q"]
    assert await big == ["aaaaa"] * 10
    assert "q" in recorder.batches[1] or "q" in recorder.batches[2]
    under_test.close()


async def test_a_query_goes_next_however_many_big_clients_are_in_line() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, batch_tokens=100, queue_tokens=100_000)
    tasks = [await begun(under_test, recorder, ["a" * 90] * 5)]
    for text in ("b" * 90, "c" * 90, "d" * 90, "q"):
        tasks.append(asyncio.create_task(under_test.submit([text] * (5 if len(text) > 1 else 1))))
        await asyncio.sleep(0)
    recorder.go.release(100)
    await asyncio.gather(*tasks)
    assert recorder.batches[1] == ["q"]
    under_test.close()


async def test_queries_without_end_leave_big_clients_their_turns() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, batch_tokens=50, queue_tokens=100_000)
    big = await begun(under_test, recorder, ["a" * 40] * 3)
    queries = [asyncio.create_task(under_test.submit(["q" * 30])) for _ in range(20)]
    await asyncio.sleep(0)
    recorder.go.release(100)
    await asyncio.gather(big, *queries)
    assert "".join(batch[0][0] for batch in recorder.batches) == "aqqqqa" + "q" * 16 + "a"
    under_test.close()


async def test_a_caller_who_left_is_not_computed_for() -> None:
    recorder = Recorder()
    under_test = batcher(recorder)
    first = await begun(under_test, recorder, ["aaaaaaaaaa"])
    left = asyncio.create_task(under_test.submit(["bbbbbbbbbb"] * 50))
    await asyncio.sleep(0)
    left.cancel()
    with pytest.raises(asyncio.CancelledError):
        await left
    recorder.go.release(100)
    await first
    assert await under_test.submit(["c"]) == ["c"]
    assert not any("bbbbbbbbbb" in batch for batch in recorder.batches)
    under_test.close()


async def test_single_queries_pass_a_client_of_ten_thousand_texts() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, batch_tokens=4096, queue_tokens=10_000_000)
    big = await begun(under_test, recorder, ["a" * (1 + n % 256) for n in range(10_000)])
    singles = [asyncio.create_task(under_test.submit(["q" * n])) for n in range(10, 30)]
    await asyncio.sleep(0)
    recorder.go.release(10_000)
    assert await asyncio.gather(*singles) == [["q" * n] for n in range(10, 30)]
    assert len(await big) == 10_000
    early = [item for batch in recorder.batches[1:3] for item in batch]
    assert {"q" * n for n in range(10, 30)} <= set(early)
    under_test.close()


async def test_a_short_text_does_not_wait_for_long_ones_of_others() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, batch_tokens=4096)
    running = await begun(under_test, recorder, ["r"])
    texts = ["q" * 12, "q" * 30, "l" * 250, "m" * 50, "l" * 256]
    tasks = [asyncio.create_task(under_test.submit([text])) for text in texts]
    await asyncio.sleep(0)
    recorder.go.release(100)
    await asyncio.gather(running, *tasks)
    assert recorder.batches[1:] == [["q" * 12, "q" * 30], ["l" * 250, "m" * 50, "l" * 256]]
    under_test.close()


async def test_of_callers_who_leave_under_load_nothing_runs_and_all_others_are_answered() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, queue_tokens=100_000)
    running = await begun(under_test, recorder, ["rrrrrrrrrr"])
    tasks = [
        asyncio.create_task(under_test.submit([("left" if n % 2 else "stay") + "!" * (n % 6)] * n))
        for n in range(1, 60)
    ]
    await asyncio.sleep(0)
    for left in tasks[::2]:
        left.cancel()
    await asyncio.gather(*tasks[::2], return_exceptions=True)
    recorder.go.release(10_000)
    answers = await asyncio.gather(running, *tasks[1::2])
    assert [len(answer) for answer in answers] == [1, *range(2, 60, 2)]
    assert not any("left" in item for batch in recorder.batches for item in batch)
    assert await under_test.submit(["c"]) == ["c"]
    under_test.close()


async def test_a_request_is_refused_exactly_while_the_queue_is_full() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, queue_tokens=40)
    tasks = [await begun(under_test, recorder, ["aaaaaaaaaa"])]
    tasks += [asyncio.create_task(under_test.submit([text * 10])) for text in ("b", "c", "d")]
    await asyncio.sleep(0)
    # 30 wait where 40 may: room, and so a request is taken, however large it is.
    tasks.append(asyncio.create_task(under_test.submit(["e" * 10] * 1000)))
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await under_test.submit(["f"])
    assert (caught.value.status, caught.value.code) == (429, "queue_full")
    assert caught.value.headers == {"Retry-After": "1", "x-should-retry": "true"}
    recorder.go.release(2000)
    assert [len(answer) for answer in await asyncio.gather(*tasks)] == [1, 1, 1, 1, 1000]
    assert await under_test.submit(["g"]) == ["g"]
    under_test.close()


async def test_a_single_large_request_leaves_room_for_others() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, queue_tokens=80)
    tasks = [await begun(under_test, recorder, ["aaaaaaaaaa"] * 100)]
    for _ in range(2):  # each counts 20, a quarter of the queue
        tasks.append(asyncio.create_task(under_test.submit(["bbbbbbbbbb"] * 50)))
        await asyncio.sleep(0)
        under_test.require_room()
    tasks.append(asyncio.create_task(under_test.submit(["cccccccccc"] * 50)))
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="tokens are waiting already"):
        under_test.require_room()
    recorder.go.release(1000)
    assert [len(answer) for answer in await asyncio.gather(*tasks)] == [100, 50, 50, 50]
    under_test.close()


async def test_the_queue_has_room_again_as_soon_as_a_batch_is_taken_from_it() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, queue_tokens=40)
    tasks = [await begun(under_test, recorder, ["aaaaaaaaaa"])]
    tasks += [asyncio.create_task(under_test.submit(["bbbbbbbbbb"])) for _ in range(4)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError):
        await under_test.submit(["c"])
    recorder.go.release()
    await started(recorder)
    tasks.append(asyncio.create_task(under_test.submit(["c"])))
    recorder.go.release(100)
    assert (await asyncio.gather(*tasks))[-1] == ["c"]
    under_test.close()


async def test_retry_after_is_the_time_that_what_waits_will_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    recorder = Recorder()

    def run(batch: Sequence[str]) -> list[str]:
        nonlocal now
        now += 0.2 * sum(map(len, batch))
        return recorder(batch)

    # A clock that only the model moves: a real one would measure this machine.
    monkeypatch.setattr(batching, "time", SimpleNamespace(perf_counter=lambda: now))
    under_test = batcher(run, queue_tokens=40)
    tasks = [await begun(under_test, recorder, ["aaaaaaaaaa"] * 2)]
    recorder.go.release()
    await started(recorder)  # the first batch has told how long a token takes
    for count, seconds in ((1, "8"), (50, "30")):
        waiting = asyncio.gather(*(under_test.submit(["bbbbbbbbbb"] * count) for _ in range(4)))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as caught:
            await under_test.submit(["c"])
        assert caught.value.headers["Retry-After"] == seconds
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    recorder.go.release(100)
    await asyncio.gather(*tasks)
    under_test.close()


async def test_who_waits_when_it_is_closed_is_told() -> None:
    recorder = Recorder()
    under_test = batcher(recorder)
    running = await begun(under_test, recorder, ["aaaaaaaaaa"])
    waiting = asyncio.create_task(under_test.submit(["bbbbbbbbbb"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(asyncio.to_thread(under_test.close))
    with pytest.raises(ApiError, match="stopped") as caught:
        await waiting
    assert (caught.value.status, caught.value.code) == (503, "stopping")
    recorder.go.release()
    assert await running == ["aaaaaaaaaa"]
    await closing
    with pytest.raises(ApiError, match="stopped"):
        await under_test.submit(["c"])


async def test_a_model_that_fails_fails_only_those_who_were_in_the_batch() -> None:
    recorder = Recorder()

    def run(batch: Sequence[str]) -> list[str]:
        if "bad" in batch:
            raise RuntimeError("broken")
        return recorder(batch)

    under_test = batcher(run)
    running = await begun(under_test, recorder, ["aaaaaaaaaa"])
    bad = asyncio.create_task(under_test.submit(["bad"] * 20))
    good = asyncio.create_task(under_test.submit(["g" * 40] * 5))  # longer than goes with "bad"
    await asyncio.sleep(0)
    recorder.go.release(100)
    with pytest.raises(RuntimeError, match="broken"):
        await bad
    assert await running == ["aaaaaaaaaa"]
    assert await good == ["g" * 40] * 5
    assert await under_test.submit(["good"]) == ["good"]
    under_test.close()


class Answer:
    """A result that a weak reference can watch."""


async def test_nothing_keeps_the_results_of_callers_who_left_or_were_answered() -> None:
    recorder = Recorder()
    made: list[weakref.ref[Answer]] = []

    def run(batch: Sequence[str]) -> list[Answer]:
        recorder(batch)
        answers = [Answer() for _ in batch]
        made.extend(map(weakref.ref, answers))
        return answers

    under_test = Batcher("test", run, batch_tokens=10, queue_tokens=1000)
    leaving = asyncio.create_task(under_test.submit(["aaaaaaaaaa"] * 3))
    staying = asyncio.create_task(under_test.submit(["bbbbbbbbbb"] * 3))
    for _ in range(3):  # two of the leaving one's items may have run by then
        await started(recorder)
        recorder.go.release()
    await started(recorder)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    recorder.go.release(100)
    answered = await staying
    assert len(answered) == 3
    await under_test.submit(["c"])
    del answered, leaving, staying
    under_test.close()  # so that the owner thread is past its last batch
    await asyncio.sleep(0)  # and the event loop past the future that woke this test
    gc.collect()
    assert len(made) >= 5
    assert [answer() for answer in made] == [None] * len(made)


async def test_a_model_that_gives_too_few_results_fails_its_batch_and_no_other() -> None:
    under_test = batcher(lambda batch: [item for item in batch if item != "lost"])
    with pytest.raises(ValueError, match="shorter"):
        await under_test.submit(["lost"])
    assert await under_test.submit(["good"]) == ["good"]
    under_test.close()


async def test_texts_without_any_token_are_run_like_others() -> None:
    under_test = batcher(list)
    assert await under_test.submit([""] * 3) == [""] * 3
    assert await under_test.submit(["a", ""]) == ["a", ""]
    under_test.close()


async def test_a_request_whose_time_is_up_never_reaches_the_model() -> None:
    recorder = Recorder()
    under_test = batcher(recorder)
    enter(RequestContext("id", Deadline.after_ms(0), LOCAL))
    with pytest.raises(ApiError) as caught:
        await under_test.submit(["a"])
    assert caught.value.status == 504
    assert recorder.batches == []
    under_test.close()
