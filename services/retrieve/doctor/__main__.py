"""`python -m services.retrieve.doctor [--rebuild] [--json]`: what `refdesk doctor` runs.

The data folder is that of the settings. Findings go to standard output, a line each, or with --json
as one object; what is being done goes to standard error. Exits with 1 where something is wrong.
"""

import argparse
import json
import logging
import sys
from collections import Counter
from dataclasses import asdict

import structlog

from services.retrieve.doctor import folder
from services.retrieve.doctor.report import Level, Told
from shared.errors import ApiError, StartupError
from shared.settings import Settings, load_settings


def main() -> int:
    """Run the doctor; its exit code."""
    parser = argparse.ArgumentParser(prog="refdesk doctor")
    parser.add_argument("--rebuild", action="store_true")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    try:
        settings = load_settings()
        with folder.held(settings):
            return _report(settings, rebuild=asked.rebuild, as_json=asked.json)
    except (StartupError, ApiError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _report(settings: Settings, *, rebuild: bool, as_json: bool) -> int:
    found = list(folder.examine(settings))
    rebuilt: list[str] = []
    if rebuild:
        for line in folder.rebuild(settings, found):
            print(f"made anew: {line}", file=sys.stderr, flush=True)
            rebuilt.append(line)
        found = list(folder.examine(settings))
    wrong = [one for one in found if one.level is not Level.NOTE]
    if as_json:
        report = {
            "data": str(settings.data_dir),
            "sound": not wrong,
            "corpora": len(folder.corpora(settings.corpora_dir)),
            "findings": [asdict(one) for one in found],
            "rebuilt": rebuilt,
        }
        print(json.dumps(report, ensure_ascii=False))
    else:
        _print(settings, found)
    return 1 if wrong else 0


def _print(settings: Settings, found: list[Told]) -> None:
    for one in found:
        print(" ".join(one.line().split()))
    corpora = len(folder.corpora(settings.corpora_dir))
    counts = Counter(one.level for one in found)
    told = ", ".join(f"{counts[level]} {level}" for level in Level if counts[level])
    noun = "corpus" if corpora == 1 else "corpora"
    print(f"{corpora} {noun} in {settings.data_dir}: {told or 'all is well'}")


if __name__ == "__main__":
    # Of what is opened and built the findings say all that there is to say.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    sys.exit(main())
