"""JSON Schemas of callers: which are taken, and whether a value fits one. Pure functions.

A caller's schema is foreign input that work is done by. None is fetched from anywhere, its patterns
are few, small once compiled and matched in linear time, and its size bounds what a value costs:
references are counted as often as they are followed, and one that leads back to itself is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from shared.errors import shown

MOST_BYTES = 65_536  # of one schema, as JSON
_MOST_PARTS = 5_000  # with every reference followed
_MOST_DEPTH = 64
# Of one request's tools, and of its format. The worst take some 0.1 s and 10 MB.
MOST_PATTERNS, MOST_PATTERN_CHARACTERS = 64, 4096
# Of one pattern compiled, and of the states that are kept while it is matched.
_PATTERN = jsonschema_rs.RegexOptions(size_limit=131_072, dfa_size_limit=131_072)
# They change what a reference means, or bring recursion in by another door.
_NOT_TAKEN = frozenset({"$anchor", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveRef", "id"})


def refuse_schema(schema: Mapping[str, Any]) -> None:
    """Raise ValueError, with a sentence for the caller, for what is no JSON Schema or too much."""
    _refuse_depth(schema)
    if len(orjson.dumps(schema)) > MOST_BYTES:
        raise ValueError(f"the schema has over {MOST_BYTES:,} bytes")
    refuse_patterns([schema])
    _Size(schema).of(schema, (), 0)
    try:
        _validator(schema)
    except ValueError as error:  # the library's ValidationError is one
        first = str(error).split("\n", 1)[0]
        raise ValueError(f"this is no JSON Schema that can be used: {shown(first, 200)}") from None


def refuse_patterns(schemas: Iterable[Any]) -> None:
    """Raise ValueError where these, of one request, have too many patterns or too long ones.

    schemas: any JSON values, checked or not. The same pattern again costs a schema nothing.
    """
    found = [pattern for schema in schemas for pattern in _patterns(schema)]
    if len(found) > MOST_PATTERNS or sum(map(len, found)) > MOST_PATTERN_CHARACTERS:
        raise ValueError(
            f"the schema has over {MOST_PATTERNS} patterns, or {MOST_PATTERN_CHARACTERS:,} "
            "characters of them, the schemas of all tools together"
        )


def _patterns(schema: Any) -> set[str]:
    found, left = set[str](), [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        if isinstance(part, Mapping):
            left += part.values()
            if isinstance(pattern := part.get("pattern"), str):
                found.add(pattern)
            if isinstance(named := part.get("patternProperties"), Mapping):
                found.update(named)
    return found


def _refuse_depth(schema: Mapping[str, Any]) -> None:
    """Of what is written, used or not: it could not even be measured otherwise."""
    level: list[Any] = [schema]
    for _ in range(_MOST_DEPTH + 1):
        inner = [one.values() if isinstance(one, Mapping) else one for one in level]
        level = [
            child for children in inner for child in children if isinstance(child, Mapping | list)
        ]
        if not level:
            return
    raise ValueError(f"the schema is nested deeper than {_MOST_DEPTH}")


def fault(schema: Mapping[str, Any], value: Any) -> str | None:
    """The first thing that keeps a value from fitting, in a sentence; None if it fits.

    schema: one that `refuse_schema` lets pass. Of a value with many faults the others are not
    looked for: to gather them can take a thousand times as long.
    """
    try:
        _validator(schema).validate(value)
    except jsonschema_rs.ValidationError as error:
        place = "/".join(shown(str(one)) for one in error.instance_path)
        return f"{place or 'the whole'}: {shown(error.message, 120)}"
    except ValueError as error:  # a value that is nested too deeply
        return f"the whole: {shown(str(error), 120)}"
    return None


class _Size:
    """Counts the parts of a schema with its references followed."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts = 0

    def of(self, part: Any, followed: tuple[str, ...], depth: int) -> None:
        """Add a part and all below it. followed: the references that led here."""
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise ValueError(f"the schema has over {_MOST_PARTS:,} parts, references followed")
        if depth > _MOST_DEPTH:
            raise ValueError(f"the schema is nested deeper than {_MOST_DEPTH}")
        for child in self._children(part):
            self.of(child, followed, depth + 1)
        reference = part.get("$ref") if isinstance(part, Mapping) else None
        if isinstance(reference, str):
            if reference in followed:
                raise ValueError("the schema refers to itself, which is not taken")
            self.of(self._target(reference), (*followed, reference), depth + 1)

    def _children(self, part: Any) -> Iterator[Any]:
        if isinstance(part, list):
            yield from part
        if isinstance(part, Mapping):
            for key, value in part.items():
                if key in _NOT_TAKEN and isinstance(value, str) and part is not self._root:
                    raise ValueError(f"'{key}' is not taken below the top of a schema")
                # Definitions count where they are used.
                if not (part is self._root and key in ("$defs", "definitions")):
                    yield value

    def _target(self, reference: str) -> Any:
        if reference != "#" and not reference.startswith("#/"):
            raise ValueError("references lead within the schema alone: '#/$defs/NAME'")
        target: Any = self._root
        for step in reference.split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or name not in target:
                raise ValueError(f"nothing is at the reference '{shown(reference)}'")
            target = target[name]
        return target


def _validator(schema: Mapping[str, Any]) -> jsonschema_rs.Validator:
    return _compiled(orjson.dumps(schema))


# A request's own schemas are asked for again with each of its drafts. Few: one may be of 10 MB.
@lru_cache(maxsize=8)
def _compiled(schema: bytes) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(
        orjson.loads(schema), retriever=_never, pattern_options=_PATTERN
    )


def _never(_: str) -> Any:
    raise ValueError("nothing is fetched")
