"""The readable text of data: rows of comma-separated values, and JSON."""

import csv
import re
from collections import Counter
from itertools import islice

from services.retrieve.corpus.parsing.layout import Layout
from services.retrieve.corpus.parsing.tidy import LINE_ENDS
from shared.errors import ApiError

_SEPARATORS = ",;\t|"
_SAMPLED_LINES = 50
# Strings, signs of structure, and whatever else stands between them. The parser of the standard
# library would recurse, and would write numbers otherwise than they were sent.
_JSON_PART = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[{}\[\],:]|[^\s"{}\[\],:]++', re.DOTALL)
_DEEPEST = 16  # levels that are set in: what is deeper would be more space than text


def read_csv(text: str, layout: Layout, *, param: str) -> None:
    """Lay out a table of values, a row on a line; the separator is the one that its first lines
    agree on: comma, semicolon, tab or bar. Empty rows are left out.

    Raises ApiError 422 `broken_file` for what can't be read as such a table.
    """
    csv.field_size_limit(2**31 - 1)
    lines = LINE_ENDS.sub("\n", text.lstrip("\ufeff")).split("\n")
    reader = csv.reader((f"{line}\n" for line in lines), delimiter=_separator(lines))
    layout.open("table")
    try:
        for row in reader:
            values = [" ".join(value.split()) for value in row]
            if any(values):
                layout.row()
                add_row(layout, values)
    except csv.Error as error:
        raise ApiError(
            422, "broken_file", f"{param} is no table of values: {error}", param=param
        ) from None
    layout.close("table")


def add_row(layout: Layout, values: list[str]) -> None:
    """Add the cells of a row; empty ones at its end are left out, those before keep the place."""
    while values and not values[-1]:
        values.pop()
    layout.text(" | ".join(values))


def _separator(lines: list[str]) -> str:
    sample = [line for line in islice(lines, _SAMPLED_LINES) if line.strip()]

    def agreement(separator: str) -> tuple[int, int]:
        counts = Counter(line.count(separator) for line in sample)
        counts.pop(0, None)
        (count, lines_with_it), *_ = counts.most_common(1) or [(0, 0)]
        return lines_with_it, count

    return max(_SEPARATORS, key=agreement)


def read_json(text: str, layout: Layout) -> None:
    """Lay out JSON, one value on a line, set in by its depth; also JSON lines, and JSON that breaks
    off. Names, strings and numbers stay as they were written."""
    depth = 0
    line: list[str] = []
    layout.open("code", "json")

    def end() -> None:
        if line:
            layout.text("  " * min(depth, _DEEPEST) + "".join(line), verbatim=True)
            layout.gap(1)
            line.clear()

    for match in _JSON_PART.finditer(text):
        part = match[0]
        if part in "{[":
            line.append(part)
            end()
            depth += 1
        elif part in "}]":
            end()
            depth = max(0, depth - 1)
            line.append(part)
            if depth == 0:
                end()
        elif part == ",":
            line.append(part)
            end()
        else:
            line.append(": " if part == ":" else part)
    end()
    layout.close("code")
