"""The small language model that runs inside this process, as a writer.

One thread owns the model; drafts wait for it in turn. A draft that nobody waits for any more stops
within one batch of tokens.
"""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from services.generate.prompting.prompt import (
    SCAFFOLD_TOKENS,
    Message,
    build,
    declines,
    excerpts,
)
from services.generate.tiers.endpoint import Draft, DraftRequest
from services.generate.tiers.small_llm.generation import LanguageModel
from shared.errors import ApiError

# On two free cores a draft takes some 4 s. On a busy machine it may take minutes, and a reader is
# served better by the extractive answer than by waiting for those.
_LONGEST_S = 20.0
_WAITING = 8  # drafts that may wait for the thread; at some seconds each, more is no service
# What the model reads of the passages: it follows little, and reads slowly on two cores.
_SOURCE_CHARACTERS = 1200
_CHARACTERS_PER_TOKEN = 2.5  # on the safe side: English has about four


class SmallLlmEndpoint:
    """An `Endpoint` over one GGUF file.

    sha256: of the file, in hex. folder: where what is made of the file is kept. threads: of one
    inference. context: the window, prompt and draft together, in tokens. Raises StartupError where
    the file is not a model that can be run here.
    """

    def __init__(
        self,
        name: str,
        path: Path,
        sha256: str,
        folder: Path,
        *,
        threads: int,
        context: int,
    ) -> None:
        self.name = name
        self.model = name
        self._context = context
        self._waiting = 0  # for the thread, probes included
        self._drafts = 0
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="llm")
        self._language: LanguageModel | None = self._owner.submit(
            LanguageModel, path, sha256, folder, threads=threads, context=context
        ).result()

    async def draft(self, request: DraftRequest) -> Draft:
        """See `Endpoint`. 413 where the question alone does not fit the window."""
        room = self._context - request.max_tokens - SCAFFOLD_TOKENS
        room -= int(len(request.question) / _CHARACTERS_PER_TOKEN)
        if room <= 0:
            raise self._too_long()
        characters = min(_SOURCE_CHARACTERS, int(room * _CHARACTERS_PER_TOKEN))
        sources = excerpts(request.passages, request.evidence, characters)
        prompt = build(request.question, sources, request.delimiter, datamark=request.datamark)
        self._drafts += 1
        try:
            draft = await self._write(prompt, request)
        finally:
            self._drafts -= 1
        return replace(draft, text="") if declines(draft.text) else draft

    async def probe(self) -> None:
        """Write one token. Raises ApiError where that fails.

        While it drafts for somebody it is at work and need not prove it, nor keep a probe waiting.
        """
        if self._drafts:
            return
        await self._write([{"role": "user", "content": "Hello"}], _PROBE)

    async def close(self) -> None:
        """Wait for the draft at hand and free the model."""
        await asyncio.to_thread(self._owner.submit(self._free).result)
        self._owner.shutdown()

    async def _write(self, messages: list[Message], request: DraftRequest) -> Draft:
        if self._waiting >= _WAITING:
            raise ApiError(
                503,
                "writer_busy",
                f"{self.model} has {_WAITING} drafts waiting; try again later",
                headers={"Retry-After": "10"},
            )
        left = threading.Event()
        self._waiting += 1
        loop = asyncio.get_running_loop()
        refused: list[ApiError] = []  # by whom the draft is shown to

        def show(piece: str) -> None:
            if left.is_set():  # a piece that was on its way when the draft ended
                return
            try:
                if request.show is not None:
                    request.show(piece)
            except ApiError as error:
                refused.append(error)
                left.set()

        def wrote(piece: str) -> None:
            loop.call_soon_threadsafe(show, piece)

        try:
            draft = await loop.run_in_executor(
                self._owner,
                self._complete,
                messages,
                left.is_set,
                request,
                None if request.show is None else wrote,
            )
            if refused:
                raise refused[0]
            return draft
        finally:
            left.set()
            self._waiting -= 1

    def _complete(
        self,
        messages: list[Message],
        nobody_waits: Callable[[], bool],
        request: DraftRequest,
        wrote: Callable[[str], None] | None,
    ) -> Draft:
        """Runs in the owner thread. wrote: gets each piece; such a draft is written to its end."""
        if nobody_waits() or self._language is None:
            return Draft("", "stop", self.model)
        prompt = self._language.prompt(messages)
        if len(prompt) + request.max_tokens > self._context:
            raise self._too_long()
        give_up = time.monotonic() + _LONGEST_S
        pieces: list[str] = []
        read = written = 0
        ended = False
        request.meter.sent(len(prompt))
        try:
            for step in self._language.write(prompt, request.max_tokens):
                request.meter.wrote(step.written - written)
                read, written, ended = step.read, step.written, step.ended
                if nobody_waits():
                    break
                if time.monotonic() > give_up:
                    message = f"{self.model} did not finish its draft within {_LONGEST_S:.0f} s"
                    raise ApiError(503, "writer_slow", message)
                # A sentence is whole when the next begins: the space after it is the sign.
                whole = wrote is None and step.piece[:1].isspace()
                if whole and not self._can_go_on("".join(pieces), request.worth_finishing):
                    ended = True
                    break
                pieces.append(step.piece)
                if wrote is not None and step.piece:
                    wrote(step.piece)
        except ApiError:
            raise
        except Exception as error:  # the runtime's exceptions have no common base
            raise ApiError(502, "writer_failed", f"{self.model} failed: {error}") from None
        finally:
            request.meter.told(read, written)
        text = "".join(pieces).strip()
        if not text and not nobody_waits():  # no refusal either: that would be in words
            raise ApiError(502, "writer_failed", f"{self.model} wrote nothing")
        return Draft(text, "stop" if ended else "length", self.model)

    @staticmethod
    def _can_go_on(text: str, worth_finishing: Callable[[str], bool]) -> bool:
        return not text.rstrip().endswith((".", "!", "?", "]")) or worth_finishing(text)

    def _too_long(self) -> ApiError:
        return ApiError(
            413,
            "question_too_long",
            f"the question is too long for {self.model}: its window has {self._context} tokens",
        )

    def _free(self) -> None:
        self._language = None


_PROBE = DraftRequest("", (), (), 1, "")
