"""The desk's clients for people: one for plain code, one for asyncio, with the same methods.

The methods are those of `calls.py`: `Client` waits for a call's result, `AsyncClient` gives
something to await.
"""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from shared.desk import calls
from shared.desk.calls import Call
from shared.desk.errors import DeskError
from shared.desk.exchange import FAILURES, Answer, Pause, Send, Terms, exchange
from shared.desk.models import DocumentLine

_URL = "http://127.0.0.1:8003"
_LONGEST_S = 86_400  # the desk takes a longer deadline for this one

Params = ParamSpec("Params")
Result = TypeVar("Result")
_Pool = AsyncGenerator[httpx.AsyncClient, None]


class _Method(Generic[Params, Result]):
    """A call of `calls.py` as a method of either client."""

    def __init__(self, build: Callable[Params, Call[Result]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "Client", owner: type) -> Callable[Params, Result]: ...
    @overload
    def __get__(
        self, client: "AsyncClient", owner: type
    ) -> Callable[Params, Coroutine[Any, Any, Result]]: ...
    def __get__(self, client: "Client | AsyncClient | None", owner: type) -> Any:
        if client is None:
            return self

        @functools.wraps(self._build)
        def bound(*args: Params.args, **kwargs: Params.kwargs) -> Any:
            return client._run(self._build(*args, **kwargs))

        return bound


class _Desk:
    """What both clients are: an address, a key, and how long to wait.

    url: of the service retrieve. api_key: left out where the desk has no keys. timeout_s: what the
    desk is told that one call may take, its retries included; the client itself gives up where
    nothing has come for what is left of it and 2 s more. retries: further tries where the desk is
    busy or away. A proxy of the environment is not used: it is meant for the web, not for the desk.
    Raises ValueError for what can be no URL, key, time or number of tries.
    """

    def __init__(
        self,
        url: str = _URL,
        *,
        api_key: str | None = None,
        timeout_s: float = 60,
        retries: int = 2,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError("the desk's URL must start with http:// or https://")
        if not 0 < timeout_s <= _LONGEST_S or retries < 0:
            raise ValueError(
                f"timeout_s must be above 0 and at most {_LONGEST_S}, and retries 0 or more"
            )
        if api_key and not (api_key.isascii() and api_key.isprintable() and " " not in api_key):
            raise ValueError("an API key is made of visible ASCII characters alone")
        headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._terms = Terms(url.rstrip("/"), headers, timeout_s, retries)
        self._open()

    def _open(self) -> None:
        """What a client needs from its first moment on."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._terms.url!r})"

    retrieve = _Method(calls.retrieve)
    why_not = _Method(calls.why_not)
    corpora = _Method(calls.corpora)
    corpus = _Method(calls.corpus)
    create_corpus = _Method(calls.create_corpus)
    delete_corpus = _Method(calls.delete_corpus)
    add_documents = _Method(calls.add_documents)
    document_page = _Method(calls.document_page)
    document = _Method(calls.document)
    delete_document = _Method(calls.delete_document)


class Client(_Desk):
    """The desk for plain code. Safe to use from several threads; a context manager that closes it.

    Every method raises a `DeskError`.
    """

    def _open(self) -> None:
        self._http = httpx.Client(trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def documents(self, corpus: str, *, page_size: int = 100) -> Iterator[DocumentLine]:
        """All documents of a corpus in the order of their ids, read page by page."""
        after: str | None = None
        while True:
            page = self.document_page(corpus, limit=page_size, after=after)
            yield from page.documents
            if page.next is None:
                return
            after = page.next

    def _run(self, call: Call[Result]) -> Result:
        steps = exchange(call, self._terms)
        answer: Answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: Result = done.value
                return result
            answer = None
            if isinstance(step, Pause):
                time.sleep(step.seconds)
            else:
                try:
                    answer = self._http.request(**_request(step))
                except FAILURES as error:
                    answer = error
                except RuntimeError:
                    if self._http.is_closed:
                        raise _closed() from None
                    raise


class AsyncClient(_Desk):
    """The desk for asyncio. An async context manager that closes it.

    Its connections belong to the event loop of a call, and are closed when that loop ends; in
    another loop it makes new ones. Every method raises a `DeskError`.
    """

    def _open(self) -> None:
        self._is_closed = False
        self._pools: dict[asyncio.AbstractEventLoop, tuple[_Pool, httpx.AsyncClient]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        ours = self._pools.get(asyncio.get_running_loop())
        self._let_go()
        if ours is not None:
            await ours[0].aclose()

    def _let_go(self) -> None:
        """Close without waiting: a loop closes what nobody else knows of."""
        self._is_closed = True
        self._pools.clear()

    async def documents(self, corpus: str, *, page_size: int = 100) -> AsyncIterator[DocumentLine]:
        """All documents of a corpus in the order of their ids, read page by page."""
        after: str | None = None
        while True:
            page = await self.document_page(corpus, limit=page_size, after=after)
            for line in page.documents:
                yield line
            if page.next is None:
                return
            after = page.next

    async def _run(self, call: Call[Result]) -> Result:
        steps = exchange(call, self._terms)
        answer: Answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration as done:
                result: Result = done.value
                return result
            answer = None
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
            else:
                http = await self._connections()
                try:
                    answer = await http.request(**_request(step))
                except FAILURES as error:
                    answer = error
                except RuntimeError:
                    if http.is_closed:
                        raise _closed() from None
                    raise

    async def _connections(self) -> httpx.AsyncClient:
        if self._is_closed:
            raise _closed()
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            for ended in [one for one in list(self._pools) if one.is_closed()]:
                self._pools.pop(ended, None)
            pool = _pool()
            self._pools[loop] = pool, await anext(pool)  # which waits for nothing
        return self._pools[loop][1]


class Pair:
    """Both clients of one desk, as a framework's retriever needs them; the arguments are theirs."""

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float) -> None:
        self.plain = Client(url, api_key=api_key, timeout_s=timeout_s)
        self.asyncio = AsyncClient(url, api_key=api_key, timeout_s=timeout_s)

    def close(self) -> None:
        """Close the connections; those of an event loop are closed by it, without waiting."""
        self.plain.close()
        self.asyncio._let_go()


async def _pool() -> _Pool:
    """The connections in one event loop. A generator, because a loop that ends closes those that
    were begun in it, and no other loop could."""
    http = httpx.AsyncClient(trust_env=False)
    try:
        yield http
    finally:
        await http.aclose()


def _closed() -> DeskError:
    return DeskError("this client is closed: make another one")


def _request(step: Send) -> dict[str, Any]:
    """httpx's arguments."""
    return {
        "method": step.method,
        "url": step.url,
        "params": step.params,
        "headers": step.headers,
        "content": step.content,
        "timeout": step.timeout,
    }
