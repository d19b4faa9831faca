"""The check that compares meanings: a claim must be like a sentence that it cites."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from tests.judged import DRAFT, SHOWN, Judge, decided, judged_by
from tests.suite import serving
from tests.writers import WHEN, Serve, ask

CHECKS = "[citation, number, date, similarity]"


class Embed:
    """A server of embeddings for which texts are alike that share the word, or none is."""

    def __init__(self, word: str, status: int = 200) -> None:
        self.word = word
        self.status = status
        self.asked: list[list[str]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).json()
        self.asked.append(body["input"])
        data = [
            {"index": at, "embedding": _wire([1, 0] if self.word in text else [0, at + 1])}
            for at, text in enumerate(body["input"])
        ]
        answer = {"data": data, "model": "m", "revision": "r"}
        response: Response = JSONResponse(answer, self.status)
        await response(scope, receive, send)


def _wire(vector: list[float]) -> str:
    return base64.b64encode(np.array(vector, "<f4").tobytes()).decode()


async def asked_with(embed: Any, serve: Serve, folder: Path, **more: Any) -> dict[str, Any]:
    async with (
        serving(embed) as url,
        judged_by(Judge(0.9), serve, folder, embed_url=url, **more) as client,
    ):
        return await ask(client, WHEN)


async def test_a_claim_like_a_sentence_that_it_cites_is_shown(serve: Serve, tmp_path: Path) -> None:
    embed = Embed("Lovelace")
    answer = await asked_with(embed, serve, tmp_path, checks=CHECKS)
    assert answer["choices"][0]["message"]["content"] == SHOWN
    claim, *sentences = embed.asked[-1]
    assert claim == DRAFT.removesuffix(" [3].") + "."
    assert any("Ada Lovelace wrote" in sentence for sentence in sentences)


async def test_a_claim_like_nothing_that_it_cites_is_not_shown(
    serve: Serve, tmp_path: Path
) -> None:
    answer = await asked_with(Embed("written by"), serve, tmp_path, checks=CHECKS)
    assert answer["choices"][0]["message"]["content"] != SHOWN
    [failure] = decided(answer)["verification"]["failures"]
    assert failure["check"] == "similarity"
    assert "not like what it cites (0.00)" in failure["detail"]


async def test_a_text_of_the_passage_itself_needs_no_vectors(serve: Serve, tmp_path: Path) -> None:
    embed = Embed("Lovelace")
    draft = "Ada Lovelace wrote the first program in 1843 [3]."
    await asked_with(embed, serve, tmp_path, checks=CHECKS, draft=draft)
    assert len(embed.asked) == 1  # for the evidence, before anybody wrote


async def test_without_embed_the_other_checks_stand_and_the_answer_says_so(
    serve: Serve, tmp_path: Path
) -> None:
    answer = await asked_with(Embed("", status=500), serve, tmp_path, checks=CHECKS)
    assert answer["choices"][0]["message"]["content"] == SHOWN
    assert "similarity" in answer["refdesk"]["degraded"]
    assert "similarity_left_out: bad_upstream" in decided(answer)["reasons"]


@pytest.mark.parametrize("checks", ["similarity, entailment", "entailment, similarity"])
async def test_what_fails_by_its_vectors_is_not_sent_to_the_model_that_judges(
    checks: str, serve: Serve, tmp_path: Path
) -> None:
    judge = Judge(0.9)
    async with (
        serving(Embed("written by")) as url,
        judged_by(judge, serve, tmp_path, checks=f"[citation, {checks}]", embed_url=url) as client,
    ):
        answer = await ask(client, WHEN)
    assert decided(answer)["verification"]["failures"][0]["check"] == "similarity"
    assert judge.pairs == []
