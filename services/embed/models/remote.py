"""A model behind an OpenAI-compatible embeddings API: vLLM, TEI, Ollama, llama.cpp, hosted ones,
another refdesk.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from tokenizers import Tokenizer

from services.embed.models.base import (
    Kind,
    ModelInfo,
    Reading,
    TextTooLongError,
    Vectors,
    require_kinds,
)
from shared.auth import NOBODY
from shared.context import Deadline, RequestContext, enter
from shared.encoder.tokenizer import Keep, in_groups, read_whole
from shared.errors import ApiError, StartupError
from shared.settings import Settings
from shared.upstream import Lane, Upstream, batches_of

# Texts in one call: what TEI takes by default. Characters: some hundred kB of body.
_BATCH_TEXTS = 32
_BATCH_CHARACTERS = 256_000
_AT_ONCE = 4  # calls that run side by side, of all requests together
_STARTUP_MS = 30_000


class _Json(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _About(_Json):
    """What /info of a refdesk or a TEI says of its model, as far as it matters here."""

    model: str = ""  # as refdesk names it; TEI has one model, whatever it is called
    model_sha: str | None = None
    model_dtype: str | None = None
    max_input_length: int | None = None
    max_client_batch_size: int = Field(_BATCH_TEXTS, ge=1)
    special_tokens: int = 0
    prompts: dict[str, str] = {}
    default_prompt: str = ""


class _Item(_Json):
    index: int
    embedding: str | list[float]


class _Usage(_Json):
    prompt_tokens: int = Field(0, ge=0)


class _Cut(_Json):
    index: int
    tokens_cut: int


class _Answer(_Json):
    """revision, truncated: of a refdesk alone."""

    data: list[_Item]
    usage: _Usage | None = None
    revision: str = ""
    truncated: list[_Cut] = []


@dataclass(frozen=True)
class _Embedded:
    """What the server made of some texts. vectors: float32 [n, d], unit rows. tokens: that it read
    of all of them. cut: by the place of a text, how many of its tokens did not fit.
    """

    vectors: Vectors
    tokens: int
    cut: dict[int, int]
    revision: str


class RemoteModel:
    """An EmbeddingModel over HTTP, which makes vectors of texts alone; see `open_remote`.

    revision: that the server gives with its vectors; empty for others than refdesk. definition: of
    the tokenizer, where the server gives it. Tokens are those that the server counts for a call,
    shared out by length of text; only a refdesk tells which texts it cut.
    """

    def __init__(
        self,
        upstream: Upstream,
        info: ModelInfo,
        revision: str,
        definition: bytes | None,
        *,
        batch_texts: int,
        queue_tokens: int,
    ) -> None:
        self._upstream = upstream
        self._revision = revision
        self._definition = definition
        self._tokenizer = None
        if definition is not None:
            self._tokenizer = read_whole(Tokenizer.from_buffer(definition))
        self._batch_texts = batch_texts
        self._lane = Lane(at_once=_AT_ONCE, queue_tokens=queue_tokens)
        self.info = info
        self.nbytes = 0

    async def read(
        self,
        texts: Sequence[str],
        wanted: frozenset[Kind],
        *,
        keep: Keep = "start",
        whole: bool = False,
    ) -> list[Reading]:
        """See EmbeddingModel. Raises ApiError 424 too where the end of a text is to be kept: the
        API knows no such wish. `whole` is checked here where the tokenizer is known; of other
        servers, most refuse a text that is too long.
        """
        require_kinds(self.info, wanted)
        if keep == "end":
            message = f"{self.info.model} is on a server that can't be told to keep a text's end"
            raise ApiError(424, "no_such_output", message)
        if whole and self._tokenizer is not None:
            await asyncio.to_thread(self._require_whole, self._tokenizer, texts)
        batches = batches_of(texts, self._batch_texts, _BATCH_CHARACTERS)
        read = await self._lane.run(batches, self._read)
        return [reading for readings in read for reading in readings]

    def tokenizer_json(self) -> bytes:
        """See EmbeddingModel. Of all servers, only a refdesk gives it."""
        if self._definition is None:
            message = f"the server of {self.info.model} does not give the model's tokenizer"
            raise ApiError(404, "no_tokenizer", message)
        return self._definition

    async def close(self) -> None:
        """See EmbeddingModel."""
        await self._upstream.close()

    async def _read(self, texts: Sequence[str]) -> list[Reading]:
        made = await _embed(self._upstream, self.info.model, texts)
        self._require_same_model(made)
        return list(_readings(texts, made))

    def _require_same_model(self, made: _Embedded) -> None:
        dimension = made.vectors.shape[1]
        if dimension != self.info.dimension:
            raise _bad(f"vectors of {dimension} numbers, and of {self.info.dimension} before")
        if made.revision != self._revision:
            raise _bad(
                f"vectors of another revision ({made.revision}) than before ({self._revision}); "
                "start embed again to use it"
            )

    def _require_whole(self, tokenizer: Tokenizer, texts: Sequence[str]) -> None:
        limit = self.info.max_tokens
        if limit is None:
            return
        place = 0
        for group in in_groups(texts):
            for encoding in tokenizer.encode_batch_fast(group):
                if len(encoding) > limit:
                    raise TextTooLongError(place, len(encoding), limit)
                place += 1


async def open_remote(name: str, settings: Settings) -> RemoteModel:
    """The model of that name on the server that the settings name.

    What it is like is learned from a first text. Raises StartupError where that fails.
    """
    url = settings.embed_remote_url.rstrip("/")
    if not url:
        raise StartupError(
            "REFDESK_EMBED_REMOTE_URL is empty: set it to the base URL of the server's API, "
            "usually ending in /v1, or choose another backend than remote"
        )
    upstream = Upstream("the embedding server", url, settings.embed_remote_key)
    # What is beside the API, such as /info, is asked for once and never again.
    root = Upstream("the embedding server", url.removesuffix("/v1"), settings.embed_remote_key)
    try:
        # In a task of its own, as it has its own time, whoever asks for the model.
        return await asyncio.create_task(_open(name, upstream, root, settings))
    except ApiError as error:
        await upstream.close()
        raise StartupError(
            f"model {name} can't be used: {error.message}; check REFDESK_EMBED_REMOTE_URL ({url}), "
            "REFDESK_EMBED_REMOTE_KEY and the name of the model"
        ) from None
    except BaseException:
        await upstream.close()
        raise
    finally:
        await root.close()


async def _open(name: str, upstream: Upstream, root: Upstream, settings: Settings) -> RemoteModel:
    enter(RequestContext("start", Deadline.after_ms(_STARTUP_MS), NOBODY))
    first = await _embed(upstream, name, ["is anyone there?"])
    about = await _about(root, name)
    if about.default_prompt:
        raise ApiError(
            502,
            "bad_upstream",
            "the server puts a prompt of its own before texts that should have none",
        )
    dimension = first.vectors.shape[1]
    # The dimension too: most servers tell nothing else of another model behind the same name, and
    # its vectors would pass for longer ones of the former model, of which a part is kept.
    said = (first.revision, about.model_sha, about.model_dtype, dimension)
    identity = "\n".join(str(part) for part in (settings.embed_remote_url, name, *said))
    info = ModelInfo(
        model=name,
        revision=f"remote-{hashlib.sha256(identity.encode()).hexdigest()[:12]}",
        dimension=dimension,
        max_tokens=about.max_input_length,
        special_tokens=about.special_tokens,
        precision=about.model_dtype or "unknown",
        backend="remote",
        prompts=about.prompts,
        default_prompt="",
        kinds=("dense",),
    )
    return RemoteModel(
        upstream,
        info,
        first.revision,
        await _definition(upstream, name) if first.revision else None,
        batch_texts=min(_BATCH_TEXTS, about.max_client_batch_size),
        queue_tokens=settings.embed_queue_tokens,
    )


async def _about(root: Upstream, name: str) -> _About:
    """What the server says of the model; little, where it has no such path."""
    try:
        # A refdesk may have several models; others don't mind being asked for one.
        about = _About.model_validate(await root.get(f"/info?model={quote(name, safe='')}"))
    except (ApiError, ValidationError):
        return _About()
    return about if about.model in ("", name) else _About()


async def _definition(upstream: Upstream, name: str) -> bytes | None:
    try:
        return orjson.dumps(await upstream.get(f"/models/{quote(name)}/tokenizer"))
    except ApiError:
        return None


async def _embed(upstream: Upstream, name: str, texts: Sequence[str]) -> _Embedded:
    """Raises ApiError as Upstream does, and 502 for an answer that is not what was asked for."""
    body = {"model": name, "input": texts, "encoding_format": "base64"}
    told = await upstream.post("/embeddings", body)
    try:
        answer = _Answer.model_validate(told)
        items = sorted(answer.data, key=lambda item: item.index)
        if [item.index for item in items] != list(range(len(texts))):
            raise _bad(
                f"{len(items)} vectors for {len(texts)} texts, or indices that are not theirs"
            )
        vectors = np.stack([_vector(item.embedding) for item in items])
    except (ValidationError, ValueError):
        raise _bad("something that is no list of embeddings") from None
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise _bad("vectors with numbers that are not finite, or that are all 0")
    cut = {one.index: one.tokens_cut for one in answer.truncated}
    tokens = answer.usage.prompt_tokens if answer.usage else 0
    return _Embedded(vectors / lengths, tokens, cut, answer.revision)


def _bad(what: str) -> ApiError:
    return ApiError(502, "bad_upstream", f"the embedding server answered {what}")


def _vector(embedding: str | list[float]) -> Vectors:
    """float32 [d]. Raises ValueError where it is none."""
    if isinstance(embedding, list):
        return np.array(embedding, np.float32)
    try:
        return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _readings(texts: Sequence[str], made: _Embedded) -> Iterator[Reading]:
    """A reading for each text; their tokens have the sum that the server gave."""
    characters = sum(map(len, texts))
    done = counted = 0
    for place, (text, vector) in enumerate(zip(texts, made.vectors, strict=True)):
        done += len(text)
        upto = made.tokens * done // max(1, characters)
        yield Reading(upto - counted, made.cut.get(place, 0), dense=vector)
        counted = upto
