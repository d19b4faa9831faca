"""The desk's clients for people: one for plain code, one for asyncio, with the same methods.

The methods are those of `calls.py`: `Client` waits for a call's result, `AsyncClient` gives
something to await.
"""

import asyncio
import functools
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Generic, ParamSpec, Self, TypeVar, overload

import httpx

from shared.desk import calls
from shared.desk.calls import Call
from shared.desk.exchange import FAILURES, Answer, Pause, Send, Terms, exchange
from shared.desk.models import DocumentLine

_URL = "http://127.0.0.1:8003"

Params = ParamSpec("Params")
Result = TypeVar("Result")


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

    url: of the service retrieve. api_key: left out where the desk has no keys. timeout_s: for one
    call in all; the desk is told what is left of it. retries: further tries where the desk is busy
    or away. A proxy of the environment is not used: it is meant for the web, not for the desk.
    Raises ValueError for a URL or a key that can't be one.
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
        if timeout_s <= 0 or retries < 0:
            raise ValueError("timeout_s must be above 0, and retries 0 or more")
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


class AsyncClient(_Desk):
    """The desk for asyncio. An async context manager that closes it.

    Its connections belong to the event loop of the first call; in another loop it makes new ones.
    Every method raises a `DeskError`.
    """

    _http: httpx.AsyncClient | None = None
    _loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None and self._loop is asyncio.get_running_loop():
            await self._http.aclose()
        self._http = None

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
                try:
                    answer = await self._connections().request(**_request(step))
                except FAILURES as error:
                    answer = error

    def _connections(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._http is None or self._loop is not loop:
            self._http, self._loop = httpx.AsyncClient(trust_env=False), loop
        return self._http


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
