"""Sends documents to a corpus in batches, so that one bad document costs only itself."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.cli.console import progress
from shared.cli.failures import CliError, RefusedError
from shared.cli.http import Api, corpus_path
from shared.cli.sources import Document, Failure

# A batch is embedded and made durable as a whole: a small one keeps the bar moving and little is
# done again after an interruption; a large one saves transactions.
_BATCH_DOCUMENTS = 64
_BATCH_BYTES = 512 * 1024
_AT_FAULT = re.compile(r"documents\.(\d+)(?:\.|$)")


@dataclass
class Tally:
    """What became of the documents.

    statuses: how many were created, replaced and unchanged. chunks: how many were written.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    failed: list[Failure] = field(default_factory=list)

    @property
    def documents(self) -> int:
        """How many documents were seen so far, failed ones included."""
        return self.statuses.total() + len(self.failed)


def ensure_corpus(api: Api, corpus: str, language: str = "") -> bool:
    """Create `corpus` with the suite's own settings where it is missing; whether it was.

    language: of a new corpus, the suite's own if it is empty; one that is there in another raises
    RefusedError.
    """
    path = corpus_path(corpus)
    if language:
        before = api.get("/corpora", "corpora")["corpora"]
        api.put(path, {"language": language})
        return corpus not in [one["name"] for one in before]
    try:
        api.get(path)
    except RefusedError as error:
        if error.status != 404:
            raise
        api.put(path, {})
        return True
    return False


def upload(
    api: Api,
    corpus: str,
    items: Iterable[Document | Failure],
    on_progress: Callable[[Tally, int], None],
) -> Tally:
    """Store documents in `corpus`, which must exist.

    on_progress: called with the tally so far and the bytes just dealt with. Raises CliError for
    anything that is not one document's own fault; what was acknowledged by then is stored.
    """
    tally = Tally()
    sources: dict[str, str] = {}

    def once() -> Iterator[Document]:
        for item in items:
            if isinstance(item, Document) and item.id not in sources:
                sources[item.id] = item.source
                yield item
                continue
            if isinstance(item, Document):
                reason = f"its id '{item.id}' is that of {sources[item.id]}, too"
                item = Failure(item.source, reason, item.size)
            tally.failed.append(item)
            on_progress(tally, item.size)

    for batch in _batches(once()):
        try:
            _send(api, corpus, batch, tally)
        except CliError as error:
            stored = tally.statuses.total()
            if not stored:
                raise
            raise CliError(
                f"{error} (the {stored} documents before are stored: run it again to go on)"
            ) from error
        on_progress(tally, sum(document.size for document in batch))
    return tally


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        if batch and (len(batch) == _BATCH_DOCUMENTS or size + document.size > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += document.size
    if batch:
        yield batch


def _send(api: Api, corpus: str, batch: list[Document], tally: Tally) -> None:
    """Send a batch; while the desk finds fault with one document, put it aside and send the rest.

    A batch is refused whole and nothing of it stored, so that sending it again repeats nothing.
    """
    rest = list(batch)
    while rest:
        try:
            answer = api.post(
                f"{corpus_path(corpus)}/documents",
                {"documents": [document.body() for document in rest]},
                "results",
            )
        except RefusedError as error:
            at_fault = _AT_FAULT.match(error.param or "")
            if at_fault is None or int(at_fault[1]) >= len(rest):
                raise
            bad = rest.pop(int(at_fault[1]))
            reason = str(error).removeprefix(f"{error.param}: ")
            tally.failed.append(Failure(bad.source, reason, bad.size))
            continue
        for result in answer["results"]:
            tally.statuses[result["status"]] += 1
            if result["status"] != "unchanged":
                tally.chunks += result["chunks"]
        return


def upload_with_bar(
    api: Api, corpus: str, items: Iterable[Document | Failure], total_bytes: int, console: Console
) -> Tally:
    """`upload` with a progress bar: documents, chunks per second and what failed."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[state]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with progress(console, *columns) as bar:
        task = bar.add_task(f"into {corpus}", total=max(total_bytes, 1), state="")

        def show(tally: Tally, size: int) -> None:
            seconds = bar.tasks[task].elapsed or 0.0
            rate = f"{tally.chunks / seconds:.0f} chunks/s" if tally.chunks and seconds else ""
            bar.update(task, advance=size, state=f"{tally.documents} documents  {rate}")

        return upload(api, corpus, items, show)
