"""The tables of the handbook that say what a filter means, for the tests that hold code to them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.retrieve.stores.filters import Filter, parse_filter

CONCEPTS = Path(__file__).parents[1] / "docs" / "concepts"
HEADINGS = ["Missing keys", "Types", "Lists", "Dates and order"]


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of the table under a heading of a page, without its head."""
    text = (CONCEPTS / page).read_text().split(f"## {heading}\n")[1]
    section = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    for line in table[2:]:
        yield [cell.strip() for cell in line.strip("|").split("|")]


def truths(heading: str) -> Iterator[tuple[dict[str, Any], Filter, bool]]:
    """Metadata, a comparison, and whether it is true, of each row of a table on filters."""
    for metadata, comparison, result in rows("filters.md", heading):
        op, value = comparison.strip("`").split(" ", 1)
        condition = parse_filter({"type": op, "key": "k", "value": json.loads(value)})
        assert condition is not None
        yield json.loads(metadata.strip("`")), condition, {"yes": True, "no": False}[result]
