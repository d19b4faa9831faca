"""The small language model that runs inside this process, by llama.cpp (package xllamacpp).

One thread owns the model; drafts wait for it in turn. A draft that nobody waits for any more stops
within one batch of tokens.
"""

import asyncio
import secrets
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import xllamacpp

from services.generate.prompting.prompt import (
    SCAFFOLD_TOKENS,
    Message,
    build,
    declines,
    excerpts,
)
from services.generate.tiers.endpoint import Draft, DraftRequest
from shared.errors import ApiError, StartupError

_BATCH = 128  # tokens read at a time: between two batches a draft can be stopped
# On two free cores a draft takes some 6 s. On a busy machine it may take minutes, and a reader is
# served better by the extractive answer than by waiting for those.
_LONGEST_S = 20.0
_WAITING = 8  # drafts that may wait for the thread; at some seconds each, more is no service
# What the model reads of the passages: it reads some hundred tokens a second on two cores.
_SOURCE_CHARACTERS = 1200
_CHARACTERS_PER_TOKEN = 2.5  # on the safe side: English has about four


class LlamaCppEndpoint:
    """An `Endpoint` over one GGUF file.

    threads: of one inference. context: the window, prompt and draft together, in tokens.
    Raises StartupError where the file is not a model that llama.cpp can run.
    """

    def __init__(self, model: str, path: Path, *, threads: int, context: int) -> None:
        self.name = model
        self.model = model
        self._context = context
        self._waiting = 0  # for the thread, probes included
        self._drafts = 0
        self._owner = ThreadPoolExecutor(1, thread_name_prefix="llm")
        self._server: Any = self._owner.submit(_load, path, threads, context).result()

    async def draft(self, request: DraftRequest) -> Draft:
        """See `Endpoint`. 413 where the question alone does not fit the window."""
        room = self._context - request.max_tokens - SCAFFOLD_TOKENS
        room -= int(len(request.question) / _CHARACTERS_PER_TOKEN)
        if room <= 0:
            raise ApiError(
                413,
                "question_too_long",
                f"the question is too long for {self.model}: its window has {self._context} tokens",
            )
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
        body = {
            "messages": messages,
            "max_tokens": request.max_tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "return_progress": True,  # a call back after each batch, at which it can be stopped
        }
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
                body,
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
        body: dict[str, Any],
        nobody_waits: Callable[[], bool],
        request: DraftRequest,
        wrote: Callable[[str], None] | None,
    ) -> Draft:
        """Runs in the owner thread. wrote: gets each piece; such a draft is written to its end."""
        pieces: list[str] = []
        usage: dict[str, int] = {}
        finish = "stop"
        read = 0
        error: dict[str, Any] | None = None
        give_up = time.monotonic() + _LONGEST_S

        def on_chunk(chunk: dict[str, Any]) -> bool:
            """Take one event; True stops the draft."""
            nonlocal finish, error, read
            error = chunk.get("error", error)
            if nobody_waits():
                return True
            total = (chunk.get("prompt_progress") or {}).get("total", read)
            if total != read:
                read = total
                request.meter.sent(read)
            usage.update(
                {key: value for key, value in (chunk.get("usage") or {}).items() if key in _USAGE}
            )
            for choice in chunk.get("choices") or ():
                piece = choice.get("delta", {}).get("content") or ""
                finish = choice.get("finish_reason") or finish
                request.meter.wrote(bool(piece))
                # A sentence is whole when the next begins: the space after it is the sign.
                whole = wrote is None and piece[:1].isspace()
                if whole and not self._can_go_on("".join(pieces), request.worth_finishing):
                    return True
                pieces.append(piece)
                if wrote is not None and piece:
                    wrote(piece)
            return time.monotonic() > give_up

        if not nobody_waits():
            self._server.handle_chat_completions(body, on_chunk)
        if usage:  # a draft that was stopped is told none
            request.meter.told(usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
        if error is not None:
            raise ApiError(502, "writer_failed", f"{self.model} failed: {error.get('message')}")
        if time.monotonic() > give_up:
            message = f"{self.model} did not finish its draft within {_LONGEST_S:.0f} s"
            raise ApiError(503, "writer_slow", message)
        text = "".join(pieces).strip()
        if not text and not nobody_waits():  # no refusal either: that would be in words
            raise ApiError(502, "writer_failed", f"{self.model} wrote nothing")
        return Draft(text, "length" if finish == "length" else "stop", self.model)

    @staticmethod
    def _can_go_on(text: str, worth_finishing: Callable[[str], bool]) -> bool:
        return not text.rstrip().endswith((".", "!", "?", "]")) or worth_finishing(text)

    def _free(self) -> None:
        self._server = None


_PROBE = DraftRequest("", (), (), 1, "")
_USAGE = frozenset({"prompt_tokens", "completion_tokens"})


def _load(path: Path, threads: int, context: int) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = _BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.fit_params = False
    params.cache_ram_mib = 0  # it would keep the prompts of others in up to 8 GiB of memory
    params.ctx_shift = False
    params.warmup = False
    params.verbosity = 0
    # llama.cpp's server insists on listening somewhere. It gets a socket that nobody can reach: a
    # file in a folder that is gone when this returns, and a key that nobody knows.
    params.ui = False
    params.endpoint_slots = False
    params.n_threads_http = 1
    params.api_keys = [secrets.token_urlsafe(32)]
    with tempfile.TemporaryDirectory(prefix="refdesk-llm-") as folder:
        params.hostnames = [f"{folder}/llm.sock"]
        try:
            return xllamacpp.Server(params)
        except RuntimeError:
            raise StartupError(
                f"llama.cpp can't run {path}: the file is damaged or not a GGUF model; "
                "check it with `refdesk models verify`"
            ) from None
