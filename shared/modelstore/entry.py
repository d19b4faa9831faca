"""What the store knows about a model: its files with their hashes, its source, its licence."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from shared.errors import StartupError
from shared.modelstore.progress import Progress

ENTRY_FILE = "entry.json"
BLOCK = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")

WeightsFormat = Literal["safetensors", "onnx", "gguf"]


class ModelStoreError(StartupError):
    """The store could not do what was asked: one sentence that says why and what to do.

    A `StartupError`, because a service that meets it can't start.
    """


class ModelMissingError(ModelStoreError):
    """The store does not hold a model of that name."""


def valid_name(name: str) -> str:
    """`name` as it is, if it can be a folder of the store. Raises ModelStoreError otherwise."""
    if not _NAME.fullmatch(name):
        raise ModelStoreError(
            f"{name!r} cannot be the name of a model: use letters, digits, '.', '_' and '-', "
            "at most 128, beginning with a letter or digit"
        )
    return name


def inside(path: str) -> str:
    """`path` as it is, if it names a file below the folder it is joined to.

    Raises ValueError for an absolute path, for '..', and for anything not in its plainest form.
    """
    plain = PurePosixPath(path)
    if (
        not plain.parts
        or plain.is_absolute()
        or ".." in plain.parts
        or str(plain) != path
        or not path.isprintable()
        or "\\" in path
    ):
        raise ValueError(f"{path!r} is not a path inside the model's folder")
    return path


class ModelFile(BaseModel):
    """A file's content by its SHA-256 (64 hex digits) and its length in bytes."""

    model_config = ConfigDict(frozen=True)

    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)


class ModelEntry(BaseModel):
    """One revision of one model, as written in its `entry.json`.

    name: what settings call it. revision: 12 hex digits derived from the files (`revision_of`).
    source: where it came from, precise enough to fetch it again. licence: SPDX id where known,
    else ``unknown``. kind: the format of its weights, which decides what can run it.
    files: path inside the folder -> content. path: the folder itself (not stored).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    revision: str
    source: str
    licence: str
    kind: WeightsFormat
    files: dict[Annotated[str, AfterValidator(inside)], ModelFile] = Field(min_length=1)
    path: Path = Field(exclude=True)

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files.values())


@dataclass(frozen=True)
class Problem:
    """A file of a stored model that is not what it was when it was stored."""

    name: str
    revision: str
    file: str
    fault: str

    def __str__(self) -> str:
        return f"{self.name} {self.revision}: {self.file} {self.fault}"


def weights_format(paths: Iterable[str]) -> WeightsFormat | None:
    """The format of the weights among `paths`, safetensors before others; None without weights."""
    suffixes = {PurePosixPath(path).suffix for path in paths}
    formats: tuple[WeightsFormat, ...] = ("safetensors", "onnx", "gguf")
    return next((one for one in formats if f".{one}" in suffixes), None)


def revision_of(files: dict[str, ModelFile]) -> str:
    """First 12 hex digits of the SHA-256 over every path and content hash, in order of path.

    It depends on the content alone, so the same model from two sources has one revision.
    """
    listing = "".join(f"{path}\0{files[path].sha256}\n" for path in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()[:12]


def copy_hashed(source: IO[bytes], target: Path, limit: int) -> ModelFile:
    """Copy a stream to the new file `target`, flushed to the disk; gives its hash and length.

    Raises ModelStoreError when more than `limit` bytes come, OSError when writing fails.
    """
    digest = hashlib.sha256()
    size = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("xb") as file:
        while block := source.read(BLOCK):
            size += len(block)
            if size > limit:
                raise ModelStoreError(f"{target.name} is longer than the {limit} bytes expected")
            digest.update(block)
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    return ModelFile(sha256=digest.hexdigest(), bytes=size)


def hash_file(path: Path) -> ModelFile:
    """Hash and length of a file. Raises OSError."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return ModelFile(sha256=digest, bytes=file.tell())


def read_entry(folder: Path) -> ModelEntry:
    """The entry of the revision in `folder`.

    Raises ModelStoreError if it can't be read, or is not the one this revision was stored with.
    """
    try:
        stored = json.loads((folder / ENTRY_FILE).read_bytes())
        entry = ModelEntry.model_validate({**stored, "path": folder})
    except FileNotFoundError:
        raise ModelStoreError("is missing") from None
    except OSError as error:
        raise ModelStoreError(f"can't be read ({error.strerror})") from None
    except (ValueError, TypeError, ValidationError):
        raise ModelStoreError("is damaged") from None
    if (folder.parent.name, folder.name) != (entry.name, revision_of(entry.files)):
        raise ModelStoreError("does not belong to this model and revision")
    return entry


def problems_of(entry: ModelEntry, *, hashes: bool, progress: Progress) -> list[Problem]:
    """What is missing or changed among an entry's files.

    hashes: read every byte and compare SHA-256; without, only presence and size are compared.
    """
    found = []
    done = 0
    for path, expected in entry.files.items():
        fault = _fault(entry.path / path, expected, hashes=hashes)
        if fault:
            found.append(Problem(entry.name, entry.revision, path, fault))
        done += expected.bytes
        if hashes:
            progress(f"checking {entry.name}", done, entry.bytes)
    return found


def _fault(path: Path, expected: ModelFile, *, hashes: bool) -> str | None:
    try:
        size = path.stat().st_size
        if not path.is_file():
            return "is not a file"
        if size != expected.bytes:
            return f"is damaged ({size} bytes instead of {expected.bytes})"
        if hashes and hash_file(path) != expected:
            return "is damaged (its SHA-256 is not the one recorded)"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"can't be read ({error.strerror})"
    return None
