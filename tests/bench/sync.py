"""How long it takes to find out that nothing has changed, by `refdesk ingest`.

    python -m tests.bench.sync [--files 10000]

Small files are loaded into a corpus of the whole suite, and the same command is run again: it reads
and hashes every file, and asks which have changed. Then one file is changed and one is removed.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.suite import Suite, prepare_suite

FOLDERS = 100


def write_files(folder: Path, files: int) -> None:
    """Files of one short sentence, none like another."""
    for number in range(files):
        path = folder / f"{number % FOLDERS:03}" / f"{number}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"Drawer {number} holds key {number * 7919 % 10_007}.\n")


def ingest(suite: Suite, folder: Path) -> float:
    """Seconds that the command takes."""
    arguments = ("ingest", str(folder), "--corpus", "sync", "--prune")
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-m", "shared.cli.main", *arguments],
        env={**os.environ, **suite.env},
        stderr=subprocess.PIPE,
        check=True,
    )
    return time.perf_counter() - started


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    files = parser.parse_args().files
    table = Table("run", "files", "seconds", "files/s", box=None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "files")
        write_files(folder, files)
        suite = prepare_suite(Path(name))
        suite.url("retrieve")

        def run(what: str) -> None:
            seconds = ingest(suite, folder)
            table.add_row(what, str(files), f"{seconds:.1f}", f"{files / seconds:.0f}")

        try:
            run("first load")
            for _ in range(3):
                run("nothing changed")
            (folder / "000" / "0.txt").write_text("Drawer 0 is empty.\n")
            (folder / "001" / "1.txt").unlink()
            run("one changed, one removed")
        finally:
            suite.stop()
    Console().print(table)


if __name__ == "__main__":
    main()
