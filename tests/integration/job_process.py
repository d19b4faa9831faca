"""A process that does jobs until it is killed.

`python -m tests.integration.job_process URL FOLDER LEASE_S`: copies the items of jobs "ingest" to
FOLDER (`tests.works.copying`); of jobs "poison" it dies.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services.retrieve.catalogue.database import CatalogueDatabase
from services.retrieve.jobs.model import Run
from tests.works import copying, running


async def poison(_: Run) -> Mapping[str, Any]:
    """Takes the process with it."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


async def main(url: str, folder: Path, lease_s: float) -> None:
    database = CatalogueDatabase.open(url, folder)
    works = {"ingest": copying(folder / "out", pause_s=0.005), "poison": poison}
    async with running(database, works, lease_s=lease_s):
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])))
