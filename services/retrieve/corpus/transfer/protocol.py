"""What goes over the wire about backups that were restored."""

from services.retrieve.corpus.protocol import Body
from services.retrieve.corpus.settings_protocol import Corpus
from shared.moment import Moment


class BackupBody(Body):
    """What a backup says of itself. name: of the corpus that it was made of. refdesk: the version
    that made it."""

    name: str
    made_at: Moment
    refdesk: str
    documents: int
    chunks: int


class Restored(Body):
    """A corpus that was restored. notes: what there is to know before it is searched."""

    corpus: Corpus
    backup: BackupBody
    notes: list[str]
