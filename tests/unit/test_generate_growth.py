"""What reading and checking costs grows with the text, not with its square; where it is done."""

import asyncio
import random
import sys
import threading
from collections.abc import Callable

import pytest

from services.generate.answer.reading_aside import LONG, read_aside
from services.generate.reading.evidence import gather
from services.generate.reading.passages import Passage
from services.generate.verification.checks.compared import page
from services.generate.verification.checks.profile import LIGHT, STRICT, Profile
from services.generate.verification.verify import verify
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, current, enter
from shared.errors import ApiError

_DRAW = random.Random(0)
WORDS = ["".join(_DRAW.choices("abcdefghiklmnoprstu", k=7)) for _ in range(2000)]
# Twice the text may take about twice the steps; where they grew by the square, four times.
LINEAR = 3


def text(sentences: int, seed: str) -> str:
    draw = random.Random(seed)
    return " ".join(
        f"{' '.join(draw.choices(WORDS, k=12))}.".capitalize() for _ in range(sentences)
    )


def passages(count: int, sentences: int) -> list[Passage]:
    return [
        Passage(n, f"{n}#0", str(n), "c", f"Page {n}", None, text(sentences, f"p{n}"), 0.5)
        for n in range(1, count + 1)
    ]


def steps(work: Callable[[], object]) -> int:
    """How many calls Python makes in it: the same in each run, on any machine."""
    made = 0

    def count(frame: object, event: str, arg: object) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    work()  # fills the cache of stems, which all texts share
    page.cache_clear()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("profile", [STRICT, LIGHT])
@pytest.mark.parametrize("seed", ["draft", "p1"])  # of other words, and of a passage's own
def test_twice_the_draft_beside_twice_the_passages_takes_twice_the_steps(
    profile: Profile, seed: str
) -> None:
    def verifying(size: int) -> int:
        draft, beside = text(size, seed), passages(size, 20)
        return steps(lambda: verify(draft, beside, profile=profile))

    assert verifying(32) < LINEAR * verifying(16)


def test_a_quote_in_each_sentence_takes_no_more_than_its_share() -> None:
    def quoting(size: int) -> int:
        draft = " ".join(f'It says "{one}" there [1].' for one in text(size, "p1").split(". "))
        beside = passages(1, size)
        return steps(lambda: verify(draft, beside, profile=LIGHT))

    assert quoting(80) < LINEAR * quoting(40)


def test_twice_the_question_beside_twice_the_passages_takes_twice_the_steps() -> None:
    def gathering(size: int) -> int:
        question, beside = text(4 * size, "q"), passages(size, 20)
        return steps(lambda: gather(question, beside))

    assert gathering(32) < LINEAR * gathering(16)


async def test_a_short_text_is_read_in_the_loop_and_a_long_one_beside_it() -> None:
    assert await read_aside(threading.get_ident, LONG - 1) == threading.get_ident()
    assert await read_aside(threading.get_ident, LONG) != threading.get_ident()


async def test_what_is_read_beside_the_loop_belongs_to_the_same_request() -> None:
    enter(RequestContext("r1", Deadline.after_ms(5000), NOBODY))
    assert (await read_aside(current, LONG)).request_id == "r1"


async def test_the_loop_goes_on_while_a_long_text_is_read() -> None:
    go_on = threading.Event()

    async def other() -> None:
        go_on.set()

    waiting = asyncio.create_task(read_aside(lambda: go_on.wait(5), LONG))
    await asyncio.create_task(other())
    assert await waiting is True


async def test_a_long_text_is_not_waited_for_past_the_deadline() -> None:
    enter(RequestContext("r1", Deadline.after_ms(20), NOBODY))
    go_on = threading.Event()
    with pytest.raises(ApiError) as told:
        await read_aside(lambda: go_on.wait(5), LONG)
    go_on.set()
    assert (told.value.status, told.value.code) == (504, "deadline_exceeded")
