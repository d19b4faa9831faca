"""Where documents are prepared: here, or in worker processes.

Parsing and chunking are Python: done here they take the interpreter away from the searches of this
process, and a hostile file could take it for ever. In a worker process a document costs a
millisecond more, so a small text of a small request stays here, where it takes no longer than that
itself.
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from services.retrieve.corpus.chunk import TokenCounter
from services.retrieve.corpus.embedding import Librarian
from services.retrieve.corpus.parsing.workers import Workers
from services.retrieve.corpus.prepare import (
    Prepared,
    Task,
    WorkerTask,
    prepare,
    prepare_in_worker,
)
from services.retrieve.corpus.source import SourceDocument, size
from services.retrieve.stores.corpus import CorpusInfo
from shared.context import current
from shared.durable import atomic_write
from shared.errors import ApiError
from shared.together import together

# Of all the texts of a request together that are prepared in this process: some 10 ms of work.
_HERE_CHARACTERS = 4_000

Given = TypeVar("Given")
Result = TypeVar("Result")


class Preparation:
    """Prepares documents. Used from one event loop.

    folder: where the tokenizers are put for the worker processes, one file each. seconds: that a
    worker process may take for one document.
    """

    def __init__(
        self,
        librarian: Librarian,
        workers: Workers | None,
        folder: Path | None,
        seconds: float = 60.0,
    ) -> None:
        self._librarian = librarian
        self._workers = workers
        self._folder = folder
        self._seconds = seconds
        self._files: dict[str, Path] = {}
        self._here = asyncio.Lock()  # one at a time: it holds the interpreter anyway

    async def counter(self, info: CorpusInfo) -> TokenCounter:
        """How the corpus's own model counts. Raises what `Librarian.counter` does."""
        return await self._librarian.counter(info)

    async def prepared(self, tasks: Sequence[Task], info: CorpusInfo) -> list[Prepared | ApiError]:
        """The documents of one corpus, in order, prepared side by side; of one that can't be its
        error. Raises ApiError 503 where no worker process can be started, 504 once the deadline
        has passed, and what embed raises when it is asked for the tokenizer."""
        counter = await self.counter(info)
        if self._workers is None or self._folder is None or _small(tasks):
            async with self._here:
                return await asyncio.to_thread(_prepare_all, tasks, counter)
        workers, tokenizer = self._workers, await self.tokenizer_file(info)

        async def one(task: Task) -> Prepared | ApiError:
            try:
                return await workers.run(
                    prepare_in_worker,
                    WorkerTask(task, tokenizer),
                    seconds=self._seconds,
                    param=task.param,
                )
            except ApiError as error:
                if error.status >= 500:  # no fault of the document's
                    raise
                return error

        found = await together(one(task) for task in tasks)
        current().deadline.check()
        return found

    async def computed(
        self,
        work: Callable[[Given], Result],
        given: Given,
        *,
        seconds: float,
        param: str,
    ) -> Result:
        """What `work(given)` gives, in a worker process where there are some; see `Workers.run`."""
        if self._workers is None:
            async with self._here:
                return await asyncio.to_thread(work, given)
        return await self._workers.run(work, given, seconds=seconds, param=param)

    async def tokenizer_file(self, info: CorpusInfo) -> Path:
        """The file of a model's tokenizer.json. Raises what `Librarian.tokenizer` does."""
        key = f"{info.model} {info.revision}"
        if key not in self._files:
            definition = await self._librarian.tokenizer(info)
            name = hashlib.sha256(definition).hexdigest()
            assert self._folder is not None  # noqa: S101 - for the type checker
            path = self._folder / f"{name}.json"

            def keep() -> None:
                if not path.exists():
                    path.parent.mkdir(parents=True, exist_ok=True)
                    atomic_write(path, definition)

            await asyncio.to_thread(keep)
            self._files[key] = path
        return self._files[key]


def _small(tasks: Sequence[Task]) -> bool:
    return (
        all(isinstance(task.source, SourceDocument) for task in tasks)
        and sum(size(task.source) for task in tasks) <= _HERE_CHARACTERS
    )


def _prepare_all(tasks: Sequence[Task], counter: TokenCounter) -> list[Prepared | ApiError]:
    """Raises ApiError 504 once the request's deadline has passed."""
    done: list[Prepared | ApiError] = []
    for task in tasks:
        current().deadline.check()  # a thread can't be cancelled: it must see for itself
        try:
            done.append(prepare(task, counter))
        except ApiError as error:
            done.append(error)
    return done
