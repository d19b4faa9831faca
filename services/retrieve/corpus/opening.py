"""The corpora of a desk, opened as its settings say: of which engines, and where new ones go."""

from contextlib import ExitStack

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.transfer.restore import clear_away
from services.retrieve.stores.corpus import EngineName
from services.retrieve.stores.engine import Engine
from services.retrieve.stores.local.engine import LocalEngine
from shared.errors import StartupError
from shared.settings import Settings


def open_corpora(settings: Settings) -> tuple[Catalog, CatalogueDatabase]:
    """Open all corpora, and the database of the catalogue; the caller closes them in this order.

    Raises StartupError where one of them can't be opened; nothing is left open then.
    """
    with ExitStack() as opened:
        # First, as it keeps other processes out of the data folder.
        local = LocalEngine.at(settings.corpora_dir, settings.dense_device)
        opened.callback(local.close)
        url = settings.catalogue_url.get_secret_value()
        database = CatalogueDatabase.open(url, settings.data_dir)
        opened.callback(database.close)
        engines: dict[EngineName, Engine] = {"local": local}
        if settings.qdrant_url:
            # Only where it is meant: qdrant-client need not be installed.
            from services.retrieve.stores.qdrant.engine import QdrantEngine
            from services.retrieve.stores.qdrant.link import connect

            engines["qdrant"] = QdrantEngine(
                database, connect(settings), patience_s=settings.qdrant_timeout_s
            )
            opened.callback(engines["qdrant"].close)
        if settings.store not in engines:
            raise StartupError(
                "REFDESK_STORE is qdrant, and no Qdrant is known: set REFDESK_QDRANT_URL to its "
                "address, or REFDESK_STORE to local"
            )
        catalog = Catalog(engines, settings.store)
        opened.callback(catalog.close)
        clear_away(settings.transfers_dir, catalog)
        catalog.start()
        opened.pop_all()
        return catalog, database
