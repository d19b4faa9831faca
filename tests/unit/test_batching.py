"""Batches keep to their budget, take clients in turns, and forget those who left."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    return Batcher("test", run, **{"batch_tokens": 10, "queue": 100, **options})


async def started(recorder: Recorder) -> None:
    await asyncio.to_thread(recorder.started.acquire)


@settings(max_examples=50, deadline=None)
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
        under_test = batcher(run, batch_tokens=budget, queue=1000)
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
    big = asyncio.create_task(under_test.submit(["aaaaa"] * 10))
    await started(recorder)
    small = asyncio.create_task(under_test.submit(["q"]))
    await asyncio.sleep(0)
    recorder.go.release(100)
    assert await small == ["q"]
    assert await big == ["aaaaa"] * 10
    assert "q" in recorder.batches[1] or "q" in recorder.batches[2]
    under_test.close()


async def test_a_caller_who_left_is_not_computed_for() -> None:
    recorder = Recorder()
    under_test = batcher(recorder)
    first = asyncio.create_task(under_test.submit(["aaaaaaaaaa"]))
    await started(recorder)
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


async def test_a_full_queue_answers_429_with_retry_after() -> None:
    recorder = Recorder()
    under_test = batcher(recorder, queue=3)
    running = asyncio.create_task(under_test.submit(["aaaaaaaaaa"]))
    await started(recorder)
    waiting = asyncio.create_task(under_test.submit(["b"] * 9))  # nothing waits: taken whole
    await asyncio.sleep(0)
    with pytest.raises(ApiError) as caught:
        await under_test.submit(["c"])
    assert caught.value.status == 429
    assert caught.value.headers["Retry-After"]
    recorder.go.release(100)
    await asyncio.gather(running, waiting)
    under_test.close()


async def test_a_model_that_fails_fails_only_those_who_were_in_the_batch() -> None:
    def run(batch: Sequence[str]) -> list[str]:
        if "bad" in batch:
            raise RuntimeError("broken")
        return list(batch)

    under_test = batcher(run)
    with pytest.raises(RuntimeError, match="broken"):
        await under_test.submit(["bad"] * 20)
    assert await under_test.submit(["good"]) == ["good"]
    under_test.close()


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
