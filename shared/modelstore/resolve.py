"""From what a user types to where a model comes from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shared.modelstore.catalogue import CATALOGUE, DEFAULT
from shared.modelstore.entry import ModelEntry, ModelStoreError, valid_name
from shared.modelstore.folder import FolderSource
from shared.modelstore.packages import PackageSource
from shared.modelstore.sources import Source
from shared.settings import absolute

_HUB_ID = re.compile(r"(?P<model>[\w.-]+/(?P<name>[\w.-]+))(?:@(?P<revision>\S+))?", re.ASCII)
_STORED_HUB_ID = re.compile(rf"hub (?P<url>https?://\S+)/{_HUB_ID.pattern}", re.ASCII)


@dataclass(frozen=True)
class Hub:
    """Where hub ids are looked up. token: None = only what is public."""

    url: str
    token: str | None


def resolve(
    wanted: str, *, name: str | None, stored: Mapping[str, ModelEntry], hub: Hub
) -> list[Source]:
    """The sources of ``default``, a known or stored name, a folder, or ``organisation/name[@rev]``.

    name: what the store should call it, instead of the last part of the folder or id.
    stored: the models of the store by name; one of them is fetched from where it came from. A name
    goes before a folder of that name, which is reached as ``./name``.
    Raises ModelStoreError saying what can be asked for.
    """
    if wanted == "default" or wanted in CATALOGUE or wanted in stored:
        if name:
            raise ModelStoreError(f"{wanted} has its own name: --name is for folders and hub ids")
        if wanted in stored and wanted not in CATALOGUE:
            return [_origin(stored[wanted], hub)]
        known = DEFAULT if wanted == "default" else (wanted,)
        return [PackageSource(CATALOGUE[one]) for one in known]
    folder = absolute(Path(wanted))
    if folder.is_dir():
        return [FolderSource(folder, valid_name(name or folder.resolve().name))]
    hub_id = _HUB_ID.fullmatch(wanted)
    if hub_id is None or wanted.startswith((".", "/", "~")):
        raise ModelStoreError(
            f"{wanted} is no model that refdesk knows (default, {', '.join(CATALOGUE)}) or has in "
            "the store, no folder on this machine, and no hub id (organisation/name[@revision])"
        )
    return [_hub_source(hub_id, valid_name(name or hub_id["name"]), hub)]


def _origin(entry: ModelEntry, hub: Hub) -> Source:
    """The source that a stored model came from."""
    folder = Path(entry.source.removeprefix("folder "))
    if entry.source.startswith("folder ") and folder.is_dir():
        return FolderSource(folder, entry.name)
    hub_id = _STORED_HUB_ID.fullmatch(entry.source)
    if hub_id is None:
        raise ModelStoreError(
            f"{entry.name} came from {entry.source!r}, which is not there any more: pull it from "
            f"a folder or hub id with --name {entry.name}"
        )
    same = hub_id["url"] == hub.url.rstrip("/")
    # A token is for the hub it was set for, and for no other that an entry may name.
    return _hub_source(hub_id, entry.name, hub if same else Hub(hub_id["url"], token=None))


def _hub_source(hub_id: re.Match[str], name: str, hub: Hub) -> Source:
    from shared.modelstore.hub import HubSource  # slow to import, and rarely wanted

    revision = hub_id["revision"] or "main"
    return HubSource(hub_id["model"], revision, name, url=hub.url, token=hub.token)
