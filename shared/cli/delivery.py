"""Sends documents to a corpus as jobs of the desk, two at a time, and follows them to their end."""

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from shared.cli.failures import CliError, RefusedError
from shared.cli.http import Api, corpus_path
from shared.cli.patience import patiently
from shared.cli.sources import (
    READ_FAULTS,
    Entry,
    Failure,
    reason_of,
    too_large,
)

# Of one job. While the desk works on one, the next is sent: so it always has something to do, and
# what an interruption costs stays small.
_JOB_DOCUMENTS = 500
_JOB_BYTES = 32 * 1024 * 1024
_JOBS = 2
_TRIES = 8  # to send a job that the desk refuses, as where it has no room just now
_TRY_AGAIN_S = 5.0
_LOOKS_S = (0.05, 0.1, 0.2, 0.4)  # between two looks at a job; the last one from then on
_PAGE = 1000
_LINE = re.compile(r"line \d+: ")
_UNSAFE = re.compile(r'["\\\r\n%]')


@dataclass(frozen=True)
class Step:
    """What became of documents just now. documents and bytes may be told before the statuses are.

    statuses: how many were created, replaced, unchanged or deleted; chunks: written.
    """

    documents: int = 0
    bytes: int = 0
    chunks: int = 0
    statuses: tuple[tuple[str, int], ...] = ()
    failed: tuple[Failure, ...] = ()


class _StoppedError(Exception):
    """Nothing more is to be sent."""


def deliver(
    api: Api,
    corpus: str,
    documents: Iterable[Entry],
    on_step: Callable[[Step], None],
    say: Callable[[str], None],
) -> None:
    """Store documents in `corpus`.

    on_step: told, from several threads, what became of them. say: told why it does not go on.
    Raises CliError for anything that is not one document's own fault; jobs that were sent by then
    go on. On KeyboardInterrupt they are called off.
    """
    courier = _Courier(api, corpus, on_step, say)
    with ThreadPoolExecutor(_JOBS, "job") as threads:
        running: set[Future[None]] = set()
        try:
            for batch in _batches(documents):
                if len(running) == _JOBS:
                    running = _rest(running)
                running.add(threads.submit(courier.take, batch))
            while running:
                running = _rest(running)
        except KeyboardInterrupt:
            courier.call_off()
            raise
        except BaseException:
            courier.stop()
            raise


def _rest(running: set[Future[None]]) -> set[Future[None]]:
    """Those that still run, once one has ended. Raises what that one did."""
    done, left = wait(running, return_when=FIRST_COMPLETED)
    for one in done:
        one.result()
    return left


def _batches(documents: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Documents for a job each: all files, or all JSON."""
    waiting: dict[bool, list[Entry]] = {True: [], False: []}
    sizes = {True: 0, False: 0}
    for entry in documents:
        kind = entry.state is not None
        batch = waiting[kind]
        if batch and (len(batch) >= _JOB_DOCUMENTS or sizes[kind] + entry.size > _JOB_BYTES):
            yield batch
            batch = waiting[kind] = []
            sizes[kind] = 0
        batch.append(entry)
        sizes[kind] += entry.size
    yield from (batch for batch in waiting.values() if batch)


class _Courier:
    """Takes batches to the desk. Used by several threads."""

    def __init__(
        self, api: Api, corpus: str, on_step: Callable[[Step], None], say: Callable[[str], None]
    ) -> None:
        self._api = api
        self._corpus = corpus
        self._on_step = on_step
        self._say = say
        self._stopping = threading.Event()
        self._calling_off = threading.Event()
        self._jobs: set[str] = set()  # that were sent and are not over
        self._beyond_reach: set[str] = set()  # of them, those that could not be called off
        self._said: set[str] = set()

    def stop(self) -> None:
        """Send nothing more, and don't wait for what was sent."""
        self._stopping.set()

    def call_off(self) -> None:
        """Send nothing more, and have the desk end what was sent."""
        self._calling_off.set()
        self._stopping.set()
        for job in list(self._jobs):
            self._cancel(job)

    def take(self, batch: Sequence[Entry]) -> None:
        """Store a batch; return once its job is over."""
        with suppress(_StoppedError):
            self._take(batch)

    def _take(self, batch: Sequence[Entry]) -> None:
        lost: list[Failure] = []
        try:
            job = self._send(batch, lost)
        except RefusedError as error:
            if error.status == 413 and len(batch) > 1:
                half = len(batch) // 2
                self._take(batch[:half])
                self._take(batch[half:])
                return
            if error.status == 413:
                lost = [_failure(batch[0], str(error))]
            elif error.code != "no_documents" or len(lost) < len(batch):
                raise
            self._lose(lost)
            return
        self._lose(lost)
        gone = {failure.id for failure in lost}
        self._follow(job, [entry for entry in batch if entry.id not in gone])

    def _lose(self, lost: Sequence[Failure]) -> None:
        size = sum(failure.size for failure in lost)
        self._on_step(Step(documents=len(lost), bytes=size, failed=tuple(lost)))

    def _send(self, batch: Sequence[Entry], lost: list[Failure]) -> str:
        """Send a batch; the id of its job. lost: gets those that can't be read any more."""
        # The same for each try: an answer that got lost makes no second job. It must not be made of
        # the content alone: a document that was deleted, or changed and changed back, has to be
        # stored again.
        key = secrets.token_hex(16)
        boundary = secrets.token_hex(16)
        form = batch[0].state is None
        kind = f"multipart/form-data; boundary={boundary}" if form else "application/x-ndjson"
        headers = {"content-type": kind, "idempotency-key": key}
        path = f"{corpus_path(self._corpus)}/ingest"

        def send() -> str:
            lost.clear()
            parts = self._form(batch, boundary, lost) if form else self._lines(batch)
            return str(self._api.upload(path, parts, headers, "id")["id"])

        for left in reversed(range(_TRIES)):
            try:
                job = patiently(send, self._tell, lambda _: self._pause(_TRY_AGAIN_S))
            except RefusedError as error:
                if not left or not _may_pass(error):
                    raise
                if error.status == 409:
                    headers["idempotency-key"] = secrets.token_hex(16)
                    continue
                self._tell(f"{error}; it is tried again")
                self._pause(_TRY_AGAIN_S)
                continue
            self._jobs.add(job)
            if self._calling_off.is_set():
                self._cancel(job)
            return job
        raise AssertionError("unreachable: the loop returns or raises")

    def _form(self, batch: Sequence[Entry], boundary: str, lost: list[Failure]) -> Iterator[bytes]:
        """The files as a form (RFC 7578). Each is read whole before its part begins: what can't be
        read must not spoil the others."""
        told = []
        for number, entry in enumerate(batch):
            data = self._read(entry, lost)
            if data is None:
                continue
            # The name says the format, no more: what it may hold is not what an id may.
            name = f"{number}/{_UNSAFE.sub('_', entry.id.rpartition('/')[2])}"
            told.append({"file": name, "id": entry.id})
            yield (
                f'--{boundary}\r\nContent-Disposition: form-data; name="files"; '
                f'filename="{name}"\r\n\r\n'
            ).encode()
            yield data
            yield b"\r\n"
        yield f'--{boundary}\r\nContent-Disposition: form-data; name="documents"\r\n\r\n'.encode()
        yield orjson.dumps(told)
        yield f"\r\n--{boundary}--\r\n".encode()

    def _read(self, entry: Entry, lost: list[Failure]) -> bytes | None:
        if self._stopping.is_set():
            raise _StoppedError
        try:
            with entry.open() as file:
                data = file.read(entry.most + 1)
        except READ_FAULTS as error:
            lost.append(_failure(entry, reason_of(error)))
            return None
        if len(data) > entry.most:
            lost.append(_failure(entry, too_large(len(data), entry.most)))
            return None
        return data

    def _lines(self, batch: Sequence[Entry]) -> Iterator[bytes]:
        for entry in batch:
            if self._stopping.is_set():
                raise _StoppedError
            with entry.open() as file:
                yield file.read() + b"\n"

    def _follow(self, job_id: str, batch: Sequence[Entry]) -> None:
        """Tell how a job goes until it is over."""
        size, told = sum(entry.size for entry in batch), Step()
        for job in self._looks(job_id):
            progress = job["progress"]
            now = Step(min(progress["documents"], len(batch)), min(progress["bytes"], size))
            self._on_step(Step(now.documents - told.documents, now.bytes - told.bytes))
            told = now
            if job["state"] == "queued" and job["error"]:
                self._tell(f"it waits to be tried again: {job['error']['message']}")
        counts = [(name, count) for name, count in job["verdicts"].items() if name != "failed"]
        failed = tuple(self._failed(job_id, batch)) if job["verdicts"]["failed"] else ()
        self._on_step(Step(chunks=progress["chunks"], statuses=tuple(counts), failed=failed))
        self._jobs.discard(job_id)
        match job["state"]:
            case "failed":
                error = job["error"]
                raise RefusedError(error["message"], 502, error["code"], error["param"])
            case "cancelled":
                # sorted: the other threads change the set, never while a list is made of it.
                others = "".join(f"; job {one} of this load goes on" for one in sorted(self._jobs))
                raise CliError(f"job {job_id} was called off{others}")
        self._on_step(Step(len(batch) - told.documents, size - told.bytes))

    def _looks(self, job_id: str) -> Iterator[dict[str, Any]]:
        """A job as it is from time to time, and at last as it ended."""
        look = partial(self._api.get, f"/jobs/{job_id}", "state", "progress", "verdicts", "error")
        pauses = iter(_LOOKS_S)
        pause = 0.0
        while True:
            job = patiently(look, self._tell, self._pause)
            yield job
            if job["state"] not in ("queued", "running"):
                return
            pause = next(pauses, pause)
            if self._calling_off.is_set():
                time.sleep(pause)  # it ends soon, and then what it stored is known
            else:
                self._stopping.wait(pause)
            stopped = self._stopping.is_set() and not self._calling_off.is_set()
            if stopped or job_id in self._beyond_reach:
                raise _StoppedError

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _StoppedError

    def _failed(self, job_id: str, batch: Sequence[Entry]) -> Iterator[Failure]:
        """The verdicts on documents that can't be stored."""
        known = {entry.id: entry for entry in batch}
        after = 0
        while after is not None:
            path = f"/jobs/{job_id}/verdicts?status=failed&limit={_PAGE}&after={after}"
            page = patiently(partial(self._api.get, path, "verdicts"), self._tell, self._pause)
            for verdict in page["verdicts"]:
                reason = _LINE.sub("", verdict["reason"] or verdict["code"] or "", count=1)
                entry = known.get(verdict["id"])
                source = entry.source if entry else verdict["id"]
                yield Failure(source, reason, 0, verdict["id"])
            after = page["next"]

    def _cancel(self, job_id: str) -> None:
        try:
            self._api.post(f"/jobs/{job_id}/cancel", {})
        except CliError as error:
            if isinstance(error, RefusedError) and error.status in (404, 409):
                return  # it is over
            self._beyond_reach.add(job_id)
            self._tell(f"job {job_id} could not be called off: {error}")

    def _tell(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            self._say(message)


def _may_pass(error: RefusedError) -> bool:
    """Whether sending the same again may help. A key was used with another request where a file has
    changed after an answer got lost."""
    return error.status == 429 or error.code == "idempotency_key_reused"


def _failure(entry: Entry, reason: str) -> Failure:
    return Failure(entry.source, reason, entry.size, entry.id)
