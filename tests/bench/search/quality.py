"""How well the desk finds with its default settings, on every collection: `refdesk eval` of each.

    python -m tests.bench.search.quality DATASETS [--out FOLDER] [--limit QUERIES]

DATASETS is the folder of the test collections, in BEIR layout; of those with a sample of a thousand
queries the sample is asked. Does no harm: curated is no more than .005 nDCG@10 behind the better of
the two arms. What `refdesk eval --json` printed is kept in FOLDER, and a collection that has been
measured is not measured again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.suite import REPOSITORY

ARMS = ("bm25", "dense", "fused", "curated")
SINGLE = ("bm25", "dense")
MEASURE = "nDCG@10"
HARM = -0.005
BEHIND = -0.02  # fused by more than this: worth saying
SAMPLE = "sample1000"
LANGUAGES = {"xquad-de": "de"}
# Collection to the mark of its curated nDCG@10.
MARKS = {"scifact": 0.735, "nfcorpus": 0.36, "cranfield": 0.47, "squad-v1-dev": 0.93}


def collections(datasets: Path) -> list[tuple[Path, str]]:
    """Folder and split of each collection."""
    folders = sorted(path.parent for path in datasets.glob("*/qrels.tsv"))
    return [
        (folder, SAMPLE if (folder / f"qrels_{SAMPLE}.tsv").exists() else "test")
        for folder in folders
    ]


def evaluate(folder: Path, split: str, out: Path, limit: int | None) -> dict[str, Any]:
    """What `refdesk eval --json` says of a collection. Ends the program where it fails."""
    kept = out / f"{folder.name}-{split}{f'-{limit}' if limit else ''}.json"
    if not kept.exists():
        command = [sys.executable, "-m", "shared.cli.main", "eval", str(folder), "--json"]
        command += ["--language", LANGUAGES[folder.name]] if folder.name in LANGUAGES else []
        command += ["--split", split, *(["--limit", str(limit)] if limit else [])]
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            sys.exit(f"`{' '.join(command)}` ended with code {done.returncode}")
        kept.write_bytes(done.stdout)
    found: dict[str, Any] = json.loads(kept.read_bytes())
    return found


def row(found: dict[str, Any], split: str) -> list[str]:
    """A line of the table."""
    values = {arm: found["arms"][arm][MEASURE] for arm in ARMS}
    best = max(values[arm] for arm in SINGLE)
    gain, fused = values["curated"] - best, values["fused"] - best
    mark = MARKS.get(found["collection"])
    return [
        f"{found['collection']} ({split}, {found['queries']} queries)",
        *(f"{values[arm]:.4f}" for arm in ARMS),
        f"{fused:+.4f}{'  behind' if fused < BEHIND else ''}",
        f"{gain:+.4f}{'  HARM' if gain < HARM else ''}",
        f"≥ {mark}{'  missed' if values['curated'] < mark else ''}" if mark else "",
    ]


def main() -> None:
    """Evaluate each, print one table as far as it is known after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("datasets", type=Path)
    parser.add_argument("--out", type=Path, help="a folder; a temporary one if not given")
    parser.add_argument("--limit", type=int, help="only the first so many queries of each")
    parser.add_argument("--only", nargs="*", help="names of collections; all if not given")
    options = parser.parse_args()
    table = Table("collection", *ARMS, "fused - best arm", "curated - best arm", "mark")
    table.title = f"{MEASURE}, default settings; does no harm: curated - best arm ≥ {HARM}"
    with tempfile.TemporaryDirectory() as scratch:
        out = options.out or Path(scratch)
        out.mkdir(parents=True, exist_ok=True)
        for folder, split in collections(options.datasets):
            if options.only is None or folder.name in options.only:
                line = row(evaluate(folder, split, out, options.limit), split)
                print(*line, sep=" | ", file=sys.stderr)
                table.add_row(*line)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
