"""A data folder as a whole, which no other process may use meanwhile."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.retrieve.catalogue.database import FILE
from services.retrieve.doctor import catalogue, generation
from services.retrieve.doctor.report import RESTORE, Level, Told
from services.retrieve.stores.corpus import CORPUS_NAME
from services.retrieve.stores.local import layout
from services.retrieve.stores.local.hold import FORMAT, hold
from services.retrieve.stores.local.layout import DATABASE, LIVE, NEW, TRASH, folder_of
from shared.errors import ApiError, StartupError
from shared.settings import Settings

_CLEARED = "retrieve removes it when it starts"


@contextmanager
def held(settings: Settings) -> Iterator[None]:
    """Keep other processes out of the data folder. Raises StartupError where one is in it, naming
    it, or where there is no such folder."""
    if not settings.corpora_dir.is_dir():
        raise StartupError(
            f"{settings.data_dir} is no data folder: name the one that retrieve uses with --data"
        )
    try:
        lock = hold(settings.corpora_dir)
    except OSError as error:
        raise StartupError(f"{settings.data_dir} can't be used ({error.strerror})") from None
    with lock:
        yield


def examine(settings: Settings) -> Iterator[Told]:
    """Whatever is wrong in a data folder that is held; nothing is changed."""
    yield from _format(settings.corpora_dir / "format.json")
    yield from _left_over(settings.corpora_dir)
    for corpus in corpora(settings.corpora_dir):
        yield from _corpus(corpus)
    if settings.catalogue_url.get_secret_value():
        what = "the catalogue is in PostgreSQL, and was not looked at"
        yield Told(Level.NOTE, "REFDESK_CATALOGUE_URL", what, "its own tools check it")
    else:
        yield from catalogue.examine(settings.data_dir / FILE)
    for folder in (settings.transfers_dir, settings.data_dir / "uploads"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            yield Told(Level.NOTE, str(path), "a process left it that died", _CLEARED)


def rebuild(settings: Settings, found: list[Told]) -> Iterator[str]:
    """Make anew what follows from the databases of a data folder that is held, but those that are
    damaged by what was found; what was done."""
    damaged = [one.where for one in found if one.level is Level.DAMAGED]
    for corpus in corpora(settings.corpora_dir):
        for folder in generations(corpus):
            if any(where.startswith(f"{folder}/") for where in damaged):
                yield f"{folder}: nothing, as its database is damaged"
                continue
            yield from generation.rebuild(folder)


def corpora(folder: Path) -> list[Path]:
    """The folders of all corpora, by name."""
    return sorted(
        path for path in folder.iterdir() if CORPUS_NAME.fullmatch(path.name) and path.is_dir()
    )


def generations(corpus: Path) -> list[Path]:
    """The folders of a corpus's generations; the corpus's own where it has the layout of format 1.

    Of a corpus of which nobody can say which generation is live, all.
    """
    if (corpus / DATABASE).exists():
        return [corpus]
    try:
        places = sorted(layout.roles(corpus).kept)
    except ApiError:
        places = layout.generations(corpus)
    return [folder_of(corpus, place) for place in places]


def _format(path: Path) -> Iterator[Told]:
    stamp = f'write {{"format": {FORMAT}}} into it'
    try:
        found = int(json.loads(path.read_bytes())["format"])
    except FileNotFoundError:
        yield Told(Level.NOTE, str(path), "it is not there", "retrieve makes it when it starts")
        return
    except (OSError, ValueError, KeyError, TypeError):
        yield Told(Level.DAMAGED, str(path), "it can't be read", stamp)
        return
    if found > FORMAT:
        what = f"it has format {found}, and this refdesk reads format {FORMAT}"
        yield Told(Level.DAMAGED, str(path), what, "upgrade refdesk")
    elif found < FORMAT:
        what = f"the folder has format {found}"
        yield Told(Level.NOTE, str(path), what, "retrieve brings it to today's when it starts")


def _corpus(corpus: Path) -> Iterator[Told]:
    try:
        roles = layout.roles(corpus)
    except ApiError as error:
        yield Told(Level.DAMAGED, str(corpus / LIVE), error.message, RESTORE)
    else:
        if not (corpus / LIVE).is_file() and not (corpus / DATABASE).exists():
            what = "it is not there, and the only generation counts as the live one"
            yield Told(Level.NOTE, str(corpus / LIVE), what, "retrieve makes it when it starts")
        for place in layout.generations(corpus):
            if place not in roles.kept:
                what = f"a generation that {LIVE} does not name"
                yield Told(Level.NOTE, str(folder_of(corpus, place)), what, _CLEARED)
    yield from _left_over(corpus)
    for folder in generations(corpus):
        yield from generation.examine(folder)


def _left_over(folder: Path) -> Iterator[Told]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((NEW, TRASH, f".{LIVE}.")):
            yield Told(Level.NOTE, str(path), "a process left it that died", _CLEARED)
