"""An embed that dies, hangs or answers rubbish in the middle of a job."""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import Response
from fastapi.responses import StreamingResponse

from services.retrieve.corpus import patience
from services.retrieve.corpus.opening import open_corpora
from shared.settings import Settings
from tests.faulty_embed import Fault, FaultyEmbed, faulty_embed
from tests.invariants import require_sound
from tests.shelf import desk
from tests.texts import Sent

COUNT = 40


def vectors(change: Any) -> Fault:
    """Sound but for its vectors."""

    def fault(sound: dict[str, Any]) -> Any:
        for one in sound["data"]:
            row = np.frombuffer(base64.b64decode(one["embedding"]), "<f4")
            one["embedding"] = base64.b64encode(change(row).astype("<f4").tobytes()).decode()
        return sound

    return fault


def broken_off(_: dict[str, Any]) -> Response:
    """The connection breaks in the middle of the answer."""
    return Response(b'{"object": "list", "data": [', headers={"content-length": "100000"})


def hanging(_: dict[str, Any]) -> Response:
    """Nothing for a while, and then the end."""

    async def nothing() -> AsyncIterator[bytes]:
        await asyncio.sleep(2)
        yield b""

    return StreamingResponse(nothing(), headers={"content-length": "100000"})


FAULTS: dict[str, Fault] = {
    "another dimension": vectors(lambda row: row[:-1]),
    "NaN": vectors(lambda row: row * np.nan),
    "infinity": vectors(lambda row: row * np.inf),
    "zeros": vectors(lambda row: row * 0),
    "too few vectors": lambda sound: {**sound, "data": sound["data"][:-1]},
    "the same place twice": lambda sound: {
        **sound,
        "data": [{**one, "index": 0} for one in sound["data"]],
    },
    "half of its JSON": lambda _: Response(b'{"object": "list", "da', media_type="text/json"),
    "a page of a proxy": lambda _: Response(b"<html>502 Bad Gateway</html>"),
    "an error": lambda _: Response(b"oops", 500),
    "overload": lambda _: Response(b"later", 429, headers={"retry-after": "0"}),
    "no answer": broken_off,
    "hangs": hanging,
}
IN_CI = ["NaN", "too few vectors", "no answer"]


@pytest.fixture(scope="module")
def embed(minilm_dir: Path) -> Iterator[FaultyEmbed]:
    """One for all tests."""
    with faulty_embed(minilm_dir / "tokenizer.json") as one:
        yield one


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Embed is asked again soon."""
    monkeypatch.setattr(patience, "_PAUSES_S", (0.01, 0.02))


async def over(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(120):
        while True:
            job: dict[str, Any] = (await client.get(f"/jobs/{job_id}")).json()
            if job["state"] not in ("queued", "running"):
                return job
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=() if kind in IN_CI else pytest.mark.long) for kind in FAULTS],
)
async def test_a_job_ends_in_words_and_nothing_half_is_stored(
    embed: FaultyEmbed, tmp_path: Path, kind: str
) -> None:
    sent = {f"d{number}": Sent.of(f"d{number}", number) for number in range(COUNT)}
    lines = [one.line(name) for name, one in sent.items()]
    first = dict(list(sent.items())[:10])
    async with desk(tmp_path, embed=embed.url) as client:
        (await client.put("/corpora/c")).raise_for_status()
        body = {"documents": [one.body(name) for name, one in first.items()]}
        done = await client.post("/corpora/c/documents", json=body)
        assert done.status_code == 200, done.text
        embed.misbehave(FAULTS[kind], 2)
        body = {"documents": [sent["d20"].body("d20")]}
        refused = await client.post("/corpora/c/documents", json=body)
        assert refused.status_code in (200, 429, 502, 503), refused.text
        if refused.status_code != 200:
            assert refused.json()["error"]["message"]
        embed.misbehave(FAULTS[kind], 2)
        stream = {"content-type": "application/x-ndjson"}
        job = await client.post("/corpora/c/ingest", content="\n".join(lines), headers=stream)
        ended = await over(client, job.json()["id"])
        assert embed.spoiled
        if ended["state"] == "failed":
            assert ended["error"]["message"]
        else:
            assert ended["state"] == "succeeded"
            assert ended["verdicts"]["failed"] == 0
        embed.misbehave(FAULTS[kind], 0)
    require(tmp_path, sent if ended["state"] == "succeeded" else first, sent)
    async with desk(tmp_path, embed=embed.url) as client:
        job = await client.post("/corpora/c/ingest", content="\n".join(lines), headers=stream)
        ended = await over(client, job.json()["id"])
        assert ended["state"] == "succeeded", ended
        assert ended["verdicts"]["failed"] == 0
    require(tmp_path, sent, {})


def require(data: Path, expected: dict[str, Sent], maybe: dict[str, Sent]) -> None:
    catalog, database = open_corpora(Settings(data_dir=data))
    try:
        unknown = {name: [one] for name, one in maybe.items()}
        require_sound(catalog.get("c"), expected, maybe=unknown)
    finally:
        catalog.close()
        database.close()
