"""A learned router that tells `prove` from the rest, the embed service that it reads, and
questions to train one on."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from services.generate.routing.learned.features import SURFACE
from services.generate.routing.learned.model import RouterModel, write_router


class Embed:
    """An embed service of two dimensions: one for what begins with `prove`, one for the rest."""

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts = (await Request(scope, receive).json())["input"]
        rows = [[1.0, 0.0] if one.startswith("prove") else [0.0, 1.0] for one in texts]
        data = [
            {"index": place, "embedding": base64.b64encode(np.array(row, "<f4")).decode()}
            for place, row in enumerate(rows)
        ]
        answer = {"data": data, "model": "m", "revision": self.revision}
        await JSONResponse(answer)(scope, receive, send)


def write_learned(path: Path, margin: float = 1.0) -> None:
    router = RouterModel(
        embedder="m@1",
        questions=10,
        share=0.5,
        bias=0.0,
        bar=0.0,
        margin=margin,
        surface=dict.fromkeys(SURFACE, 0.0),
        vector=(5.0, -5.0),
        terms={},
    )
    write_router(path, router)


# Of the same lengths: the length of the prompt tells nothing.
HARD = ("prove", "derive", "integrate", "refute")
EASY = ("spell", "repeat", "pronounce", "recite")
_THINGS = """lemma prism torus weasel cactus anchor violin glacier magnet pepper saddle lantern
    turnip beacon kettle walnut pigeon marble ribbon tunnel"""
THINGS = _THINGS.split()


def made_up() -> list[dict[str, Any]]:
    """160 questions: the strong writer alone answers most of the hard ones, both the easy ones."""
    return [
        {
            "text": f"{verb.capitalize()} something about the {thing} number {place * 7 + turn}",
            "weak_correct": not hard or place % 5 == 0,
            "strong_correct": place % 7 != 3,
            "domain": "hard" if hard else "easy",
        }
        for place, thing in enumerate(THINGS)
        for hard, verbs in ((True, HARD), (False, EASY))
        for turn, verb in enumerate(verbs)
    ]
