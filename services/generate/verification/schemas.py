"""JSON Schemas of callers: which are taken, and whether a value fits one. Pure functions.

A caller's schema is foreign input that work is done by. None is fetched from anywhere, its patterns
are few, small once compiled and matched in linear time, and its size bounds what a value costs:
references are counted as often as they are followed, and one that leads back to itself is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jsonschema_rs
import orjson

from shared.errors import shown

MOST_BYTES = 65_536  # of one schema, as JSON
_MOST_PARTS = 5_000  # with every reference followed
_MOST_DEPTH = 64
# Of one request's tools, and of its format, as they are written: what it takes to check them.
MOST_WRITTEN = 20_000
# Of one request's tools, and of its format: the worst take some 0.1 s and 10 MB.
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
    refuse_excess([schema])
    _Size(schema).of(schema)
    try:
        _validator(schema)
    except ValueError as error:  # the library's ValidationError is one
        first = str(error).split("\n", 1)[0]
        raise ValueError(f"this is no JSON Schema that can be used: {shown(first, 200)}") from None


def refuse_excess(schemas: Iterable[Any]) -> None:
    """Raise ValueError where these, of one request, have too many parts as they are written, or too
    many patterns or too long ones.

    schemas: any JSON values, checked or not. The same pattern again costs a schema nothing.
    """
    parts, patterns = 0, list[str]()
    for schema in schemas:
        own = set[str]()
        for part in _all(schema):
            parts += 1
            if parts > MOST_WRITTEN:
                raise ValueError(
                    f"the schema has over {MOST_WRITTEN:,} parts, the schemas of all tools together"
                )
            if isinstance(part, dict):
                own.update(_patterns(part))
        patterns += own
    if len(patterns) > MOST_PATTERNS or sum(map(len, patterns)) > MOST_PATTERN_CHARACTERS:
        raise ValueError(
            f"the schema has over {MOST_PATTERNS} patterns, or {MOST_PATTERN_CHARACTERS:,} "
            "characters of them, the schemas of all tools together"
        )


def _all(schema: Any) -> Iterator[Any]:
    """A JSON value and all that is in it, however deep."""
    left = [schema]
    while left:
        part = left.pop()
        yield part
        if isinstance(part, list):
            left += part
        elif isinstance(part, dict):
            left += part.values()


def _patterns(part: dict[str, Any]) -> Iterator[str]:
    if isinstance(pattern := part.get("pattern"), str):
        yield pattern
    if isinstance(named := part.get("patternProperties"), dict):
        yield from named


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
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"the schema is nested deeper than {_MOST_DEPTH}")


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


@dataclass(frozen=True)
class _Extent:
    """Of a part and all below it, references followed. height: of the deepest below it."""

    parts: int
    height: int


_LEAF = _Extent(1, 0)


class _Size:
    """Measures a schema with its references followed, each once: it may be led to from many places,
    and most that a schema can have is what it takes to write it.
    """

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[str, _Extent] = {}
        self._open: set[str] = set()  # the references that led to where it measures just now

    def of(self, part: Any, depth: int = 0) -> _Extent:
        """The extent of a part that is so deep. Raises ValueError where it is too much."""
        if depth > _MOST_DEPTH:
            raise _too_deep()
        parts, height = 1, 0
        for below in self._below(part, depth + 1):
            parts += below.parts
            height = max(height, below.height + 1)
            if parts > _MOST_PARTS:
                raise ValueError(f"the schema has over {_MOST_PARTS:,} parts, references followed")
        return _Extent(parts, height)

    def _below(self, part: Any, depth: int) -> Iterator[_Extent]:
        for child in self._children(part):
            yield self.of(child, depth) if isinstance(child, dict | list) else _LEAF
        reference = part.get("$ref") if isinstance(part, dict) else None
        if isinstance(reference, str):
            yield self._followed(reference, depth)

    def _followed(self, reference: str, depth: int) -> _Extent:
        if reference in self._open:
            raise ValueError("the schema refers to itself, which is not taken")
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.of(self._target(reference), depth)
            self._open.remove(reference)
        found = self._known[reference]
        if depth + found.height > _MOST_DEPTH:
            raise _too_deep()
        return found

    def _children(self, part: Any) -> Iterator[Any]:
        if isinstance(part, list):
            yield from part
        if isinstance(part, dict):
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
            if not isinstance(target, dict) or name not in target:
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
