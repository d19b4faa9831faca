"""Models from a folder on this machine."""

import os
from functools import cached_property
from pathlib import Path

from shared.modelstore.entry import ModelEntry, ModelFile, copy_hashed, hash_file
from shared.modelstore.licence import stated_licence
from shared.modelstore.progress import Progress, following_growth
from shared.modelstore.sources import Fetched, require_space, select


class FolderSource:
    """A folder with a model in it, laid out as model hubs do."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder = folder.absolute()
        self.name = name

    @cached_property
    def _paths(self) -> list[str]:
        def refuse(error: OSError) -> None:
            raise error  # a model without one of its folders could be another model

        # Linked files are followed, as hub caches are made of them; linked folders are not.
        paths = [
            (Path(parent) / file).relative_to(self.folder).as_posix()
            for parent, _, files in os.walk(self.folder, onerror=refuse)
            for file in files
        ]
        return select(paths, str(self.folder))

    def brings(self, entry: ModelEntry) -> bool:
        """Whether the folder still holds what the entry does, by content."""
        sizes = {path: (self.folder / path).stat().st_size for path in self._paths}
        if sizes != {path: file.bytes for path, file in entry.files.items()}:
            return False
        return all(hash_file(self.folder / path) == entry.files[path] for path in sizes)

    def fetch(self, files: Path, scratch: Path, progress: Progress) -> Fetched:
        """Copy the files that `select` takes."""
        sizes = {path: (self.folder / path).stat().st_size for path in self._paths}
        total = sum(sizes.values())
        require_space(scratch, total)
        copied: dict[str, ModelFile] = {}
        with following_growth((files,), f"copying {self.name}", total, progress):
            for path, size in sizes.items():
                with (self.folder / path).open("rb") as source:
                    copied[path] = copy_hashed(source, files / path, limit=size)
        return Fetched(copied, source=f"folder {self.folder}", licence=stated_licence(files))
