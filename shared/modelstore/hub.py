"""Models from a hub that speaks the Hugging Face protocol, by their id."""

import hashlib
import logging
import os
from functools import cached_property
from pathlib import Path

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo, RepoSibling
from huggingface_hub.utils import logging as hub_logging

from shared.modelstore.entry import BLOCK, ModelEntry, ModelFile, ModelStoreError
from shared.modelstore.licence import stated_licence
from shared.modelstore.progress import Progress, following_growth
from shared.modelstore.sources import Fetched, require_space, select

_ANSWER_S = 10.0
_AT_ONCE = (HfHubHTTPError, httpx2.HTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)


class HubSource:
    """One revision of one model of a hub.

    model: ``organisation/name``. revision: a branch, tag or commit. url: the hub's base address.
    token: sent with each request; None = only what is public.
    """

    def __init__(
        self, model: str, revision: str, name: str, *, url: str, token: str | None
    ) -> None:
        self.model = model
        self.revision = revision
        self.name = name
        self.url = url.rstrip("/")
        # False, because None would send a token that some other program has left on this machine.
        self._token: str | bool = token or False
        # Its warnings would cut into the progress bars.
        hub_logging.set_verbosity(logging.ERROR)

    @cached_property
    def _info(self) -> ModelInfo:
        """The model's commit and its files with their hashes, as the hub states them."""
        api = HfApi(endpoint=self.url, token=self._token, library_name="refdesk")
        try:
            info = api.model_info(
                self.model, revision=self.revision, files_metadata=True, timeout=_ANSWER_S
            )
        except (*_AT_ONCE, HFValidationError) as error:
            raise self._failure(error) from None
        except (ValueError, KeyError, TypeError) as error:
            raise ModelStoreError(
                f"{self.url} answered about {self.model} what no model hub answers ({error}): "
                "check REFDESK_HUB_URL"
            ) from None
        if not info.sha or not info.siblings:
            raise ModelStoreError(f"{self.model} at {self.url} has no files")
        return info

    @property
    def _source(self) -> str:
        return f"hub {self.url}/{self.model}@{self._info.sha}"

    def brings(self, entry: ModelEntry) -> bool:
        """Whether the entry was made from the commit that the revision stands for now."""
        return entry.source == self._source

    def fetch(self, files: Path, scratch: Path, progress: Progress) -> Fetched:
        """Download the files that `select` takes, and check each against the hub's own hash.

        Raises ModelStoreError if the hub does not answer, refuses, or sends something else.
        """
        stated = {sibling.rfilename: sibling for sibling in self._info.siblings or []}
        chosen = [stated[path] for path in select(stated, f"{self.model} at {self.url}")]
        ggufs = [sibling.rfilename for sibling in chosen if sibling.rfilename.endswith(".gguf")]
        if len(ggufs) > 1:
            raise ModelStoreError(
                f"{self.model} has {len(ggufs)} .gguf files ({', '.join(sorted(ggufs)[:3])}, …): "
                "download the one you want into a folder and pull that folder"
            )
        total = sum(sibling.size or 0 for sibling in chosen)
        require_space(scratch, total)
        with following_growth((files, scratch), f"fetching {self.name}", total, progress):
            fetched = {
                sibling.rfilename: self._fetch_one(sibling, files, scratch) for sibling in chosen
            }
        return Fetched(fetched, source=self._source, licence=stated_licence(files))

    def _fetch_one(self, sibling: RepoSibling, files: Path, scratch: Path) -> ModelFile:
        path = sibling.rfilename
        try:
            downloaded = Path(
                hf_hub_download(
                    self.model,
                    path,
                    revision=self._info.sha,
                    local_dir=scratch,
                    endpoint=self.url,
                    token=self._token,
                    library_name="refdesk",
                )
            )
        except _AT_ONCE as error:
            raise self._failure(error) from None
        except OSError as error:
            if error.errno is not None:  # of this machine's disk
                raise
            raise ModelStoreError(f"{self.model}: {path} did not arrive whole: {error}") from None
        content = _checked(downloaded, sibling, f"{path} of {self.model} from {self.url}")
        (files / path).parent.mkdir(parents=True, exist_ok=True)
        downloaded.replace(files / path)
        return content

    def _failure(self, error: Exception) -> ModelStoreError:
        where = f"{self.model} at {self.url}"
        remedy = "set REFDESK_HUB_TOKEN to a token that may read it"
        if isinstance(error, GatedRepoError):
            return ModelStoreError(f"{where} is gated: accept its terms there, and {remedy}")
        if isinstance(error, RevisionNotFoundError):
            return ModelStoreError(f"{where} has no revision {self.revision!r}")
        if isinstance(error, RepositoryNotFoundError):
            return ModelStoreError(f"there is no {where}, or it is private: {remedy}")
        if isinstance(error, HFValidationError):
            return ModelStoreError(f"{self.model!r} is not a hub id: {error}")
        if isinstance(error, HfHubHTTPError):
            return ModelStoreError(f"{where}: the hub answered {error.response.status_code}")
        cause = error.__cause__ or error
        return ModelStoreError(
            f"{self.url} does not answer ({cause}): check the network and REFDESK_HUB_URL, or pull "
            "the model from a folder"
        )


def _checked(file: Path, stated: RepoSibling, what: str) -> ModelFile:
    """A download's hash, once it is flushed to the disk and agrees with what the hub states:
    SHA-256 for large files, git's own id (SHA-1 over a header and the content) for small ones.

    Raises ModelStoreError where they differ.
    """
    size = file.stat().st_size
    sha256 = hashlib.sha256()
    git_id = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb+") as content:
        while block := content.read(BLOCK):
            sha256.update(block)
            if stated.lfs is None:
                git_id.update(block)
        os.fsync(content.fileno())
    expected, found = (
        (stated.lfs.sha256, sha256) if stated.lfs is not None else (stated.blob_id, git_id)
    )
    if found.hexdigest() != expected:
        raise ModelStoreError(
            f"{what} is damaged: its hash is not the one the hub states; pull it again"
        )
    return ModelFile(sha256=sha256.hexdigest(), bytes=size)
