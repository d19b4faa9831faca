"""Whole corpora to files and back, with a bar: a file is there when it is complete, or not."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from shared.cli.console import progress
from shared.cli.failures import CliError
from shared.cli.http import Api
from shared.durable import atomic_file

PATIENCE_S = 24 * 3600.0  # as long as a service bears with a request
SHA256 = "x-content-sha256"
_PART = 1024 * 1024


def save(api: Api, path: str, file: Path, console: Console, what: str) -> int:
    """Write an answer to a file, which appears once it is complete and has the SHA-256 that the
    answer names, if it names one; its size in bytes. Raises CliError and OSError."""
    if not file.absolute().parent.is_dir():
        raise CliError(f"there is no folder {file.parent}")
    found, size = hashlib.sha256(), 0
    with (
        api.download(path) as answer,
        atomic_file(file) as out,
        _bar(console) as bar,
    ):
        length = answer.headers.get("content-length")
        task = bar.add_task(what, total=int(length) if length else None)
        for part in answer.iter_bytes(_PART):
            out.write(part)
            found.update(part)
            size += len(part)
            bar.update(task, completed=size)
        expected = answer.headers.get(SHA256)
        if expected not in (None, found.hexdigest()):
            raise CliError("what arrived is not what was sent (its SHA-256 differs): try again")
    return size


def send(
    api: Api, path: str, file: Path, kind: str, console: Console, what: str, *fields: str
) -> Any:
    """POST a file and return the parsed answer. kind: its content type. Raises CliError and
    OSError."""
    with file.open("rb") as source:
        headers = {
            "content-type": kind,
            "content-length": str(file.stat().st_size),
            SHA256: hashlib.file_digest(source, "sha256").hexdigest(),
        }
        source.seek(0)
        with _bar(console) as bar:
            task = bar.add_task(what, total=file.stat().st_size)
            return api.upload(path, _parts(source, bar, task), headers, *fields)


def _parts(source: BinaryIO, bar: Progress, task: TaskID) -> Iterator[bytes]:
    while part := source.read(_PART):
        yield part
        bar.update(task, advance=len(part))


def _bar(console: Console) -> Progress:
    return progress(
        console,
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
