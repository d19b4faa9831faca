"""Stores documents in a corpus, those that have changed, and counts what became of all."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from shared.cli.changes import Comparison, Hashes
from shared.cli.console import progress, say_line
from shared.cli.delivery import Step, deliver
from shared.cli.failures import CliError, RefusedError
from shared.cli.folder import Found, Rules
from shared.cli.http import Api, corpus_path
from shared.cli.sources import Entry, Failure, LeftOut, Limits, entries


@dataclass
class Tally:
    """What became of the documents.

    statuses: how many were created, replaced, unchanged and deleted. chunks: how many were written.
    documents, bytes: dealt with so far. left_out: of archives. ids: of all that was found, as far
    as they are known, with where that is. incomplete: what may hold documents that nobody knows of.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    chunks: int = 0
    failed: list[Failure] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    documents: int = 0
    bytes: int = 0
    ids: dict[str, str] = field(default_factory=dict)
    incomplete: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def add(self, step: Step) -> None:
        """Count what became of documents. Safe to call from several threads."""
        with self._lock:
            self.documents += step.documents
            self.bytes += step.bytes
            self.chunks += step.chunks
            self.statuses.update(dict(step.statuses))
            self.failed.extend(step.failed)

    def fail(self, failure: Failure) -> None:
        """Count what can't be stored."""
        self.add(Step(documents=1, bytes=failure.size, failed=(failure,)))
        if failure.id is None:
            self.incomplete.append(failure.source)
        elif failure.id:
            self.ids.setdefault(failure.id, failure.source)

    @property
    def stored(self) -> int:
        """How many documents were written."""
        return self.statuses["created"] + self.statuses["replaced"]


OnProgress = Callable[[Tally], None]


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
    if corpus_exists(api, corpus):
        return False
    api.put(path, {})
    return True


def corpus_exists(api: Api, corpus: str) -> bool:
    """Whether there is such a corpus. Raises CliError."""
    try:
        api.get(corpus_path(corpus))
    except RefusedError as error:
        if error.status != 404:
            raise
        return False
    return True


def limits_of(api: Api, corpus: str) -> Limits:
    """How large what is loaded into `corpus` may be, as the desk says. Raises CliError."""
    told = api.get(f"{corpus_path(corpus)}/ingest", "max_file_bytes", "max_line_bytes")
    return Limits(told["max_file_bytes"], told["max_line_bytes"])


def documents_of(found: Found, rules: Rules, limits: Limits) -> Iterator[Entry | Failure | LeftOut]:
    """All documents of the files that were found, and what can't be read, with why."""
    yield from found.unreadable
    for file in found.files:
        yield from entries(file, rules.why_no_member, limits)


def store(
    api: Api,
    corpus: str,
    items: Iterable[Entry | Failure | LeftOut],
    on_progress: OnProgress,
    *,
    say: Callable[[str], None],
    hashes: Hashes | None = None,
    tally: Tally | None = None,
) -> Tally:
    """Store those documents in `corpus`, which must exist, that have changed.

    on_progress: told the tally so far, from several threads. say: told why it does not go on.
    hashes: what was hashed before. tally: to count in, for who wants to see it after a failure.
    Raises CliError for anything that is not one document's own fault; what was stored by then stays
    so.
    """
    tally = Tally() if tally is None else tally

    def count(step: Step) -> None:
        tally.add(step)
        on_progress(tally)

    def same(entry: Entry) -> None:
        count(Step(1, entry.size, statuses=(("unchanged", 1),)))

    def fail(failure: Failure) -> None:
        tally.fail(failure)
        on_progress(tally)

    with Comparison(api, corpus, hashes or Hashes(), say) as comparison:
        changed = comparison.changed(distinct(items, tally, fail), unchanged=same, failed=fail)
        try:
            deliver(api, corpus, changed, count, say)
        except CliError as error:
            if tally.stored:
                told = f"{error} ({tally.stored} documents are stored: run it again to go on)"
                error.args = (told, *error.args[1:])
            raise
    return tally


def distinct(
    items: Iterable[Entry | Failure | LeftOut], tally: Tally, fail: Callable[[Failure], None]
) -> Iterator[Entry]:
    """The documents among `items`, of each id the first; the others are told to `fail`, and what is
    left out is noted in `tally`."""
    for item in items:
        if isinstance(item, LeftOut):
            tally.left_out.append(item)
        elif isinstance(item, Failure):
            fail(item)
        elif item.id in tally.ids:
            reason = f"its id '{item.id}' is that of {tally.ids[item.id]}, too"
            fail(Failure(item.source, reason, item.size, item.id))
        else:
            tally.ids[item.id] = item.source
            yield item


def store_with_bar(
    api: Api,
    corpus: str,
    items: Iterable[Entry | Failure | LeftOut],
    total_bytes: int,
    console: Console,
    *,
    hashes: Hashes | None = None,
    tally: Tally | None = None,
) -> Tally:
    """`store` with a progress bar over all of it: documents, megabytes, rate and time left."""
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

        def show(tally: Tally) -> None:
            seconds = bar.tasks[task].elapsed or 0.0
            rate = f"  {tally.documents / seconds:.0f}/s" if seconds >= 1 else ""
            state = f"{tally.documents} documents  {tally.bytes / 1e6:.1f} MB{rate}"
            bar.update(task, completed=tally.bytes, state=state)

        say = partial(say_line, console)
        return store(api, corpus, items, show, say=say, hashes=hashes, tally=tally)
