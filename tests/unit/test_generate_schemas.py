"""JSON Schemas of callers: what is taken, what it costs, and what doesn't fit."""

import sys
from typing import Any

import pytest

from services.generate.verification.schemas import fault, refuse_schema


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth):
        schema = {"properties": {"a": schema}}
    return schema


def doubling(steps: int) -> dict[str, Any]:
    """Small as text, and 2 ** steps parts once its references are followed."""
    twice = {f"a{n}": {"allOf": [{"$ref": f"#/$defs/a{n + 1}"}] * 2} for n in range(steps)}
    return {"$defs": {**twice, f"a{steps}": {"type": "string"}}, "$ref": "#/$defs/a0"}


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        (nested(40), "nested deeper"),
        (nested(sys.getrecursionlimit()), "nested deeper"),
        ({"$defs": {"unused": nested(sys.getrecursionlimit())}}, "nested deeper"),
        (doubling(20), "5,000 parts"),
        ({"$ref": "#"}, "refers to itself"),
        ({"properties": {"next": {"$ref": "#/properties/next"}}}, "refers to itself"),
        (
            {"$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"not": {"$ref": "#/$defs/a"}}},
             "$ref": "#/$defs/a"},
            "refers to itself",
        ),
        ({"$ref": "#/nowhere"}, "nothing is at the reference '#/nowhere'"),
        ({"$ref": "https://example.com/schema"}, "within the schema alone"),
        ({"$ref": "file:///etc/passwd"}, "within the schema alone"),
        ({"$schema": "https://example.com/own"}, "no JSON Schema"),
        ({"properties": {"a": {"$id": "https://example.com/x"}}}, "'$id' is not taken"),
        ({"properties": {"a": {"$dynamicRef": "#x"}}}, "'$dynamicRef' is not taken"),
        ({"pattern": "("}, "no JSON Schema"),
        ({"minimum": "many"}, "no JSON Schema"),
        ({"enum": ["x" * 70_000]}, "65,536 bytes"),
        # 4 KB of these took seconds and a gigabyte.
        ({"pattern": r"(\pL{50}){4}|.0"}, "no JSON Schema"),
        ({"patternProperties": {r"(\pL{50}){4}|.0": True}}, "no JSON Schema"),
        ({"properties": {str(n): {"pattern": f"a{n}"} for n in range(65)}}, "over 64 patterns"),
        ({"patternProperties": {f"a{n}": True for n in range(65)}}, "over 64 patterns"),
        ({"allOf": [{"pattern": "a" * 2100}, {"pattern": "b" * 2100}]}, "4,096 characters"),
    ],
)  # fmt: skip
def test_a_schema_that_can_not_be_used_is_refused(schema: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=r"^(the schema|this is|refer|nothing|')") as refused:
        refuse_schema(schema)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://example.com/me"},
        {"$defs": {"a": {"type": "integer"}}, "items": {"$ref": "#/$defs/a"}},
        {"properties": {"$ref": {"type": "string"}, "id": {"type": "string"}}},
        {"properties": {str(n): {"pattern": "^\\d{4}-\\d{2}$"} for n in range(200)}},
        {"properties": {"pattern": {"type": "string"}}, "pattern": r"^\p{L}+$"},
        doubling(8),
        nested(20),
    ],
)
def test_an_ordinary_schema_is_taken(schema: dict[str, Any]) -> None:
    refuse_schema(schema)


def test_a_pattern_takes_linear_time() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    refuse_schema(schema)
    assert fault(schema, "a" * 10_000 + "b") is not None
    assert fault(schema, "a" * 10_000) is None


def test_the_first_fault_is_told_with_its_place() -> None:
    schema = {"items": {"type": "integer"}}
    assert fault(schema, [1, "x", "y"]) == '1: "x" is not of type "integer"'
    assert fault({"type": "object"}, 7) == 'the whole: 7 is not of type "object"'
    assert fault(schema, [1, 2]) is None


def test_a_value_with_a_million_faults_is_told_one_at_once() -> None:
    one_of = [{"properties": {"a": {"const": n}}, "required": ["a"]} for n in range(700)]
    schema = {"items": {"anyOf": one_of}}
    refuse_schema(schema)
    assert str(fault(schema, [{"a": 9999}] * 1500)).startswith("0: ")


def test_what_is_referred_to_from_many_places_is_measured_once() -> None:
    parts = 0

    class Counted(dict[str, Any]):
        def values(self) -> Any:
            nonlocal parts
            parts += 1
            return super().values()

        items = dict[str, Any].items

    shared = Counted(type="string")
    places = {str(n): {"$ref": "#/$defs/a"} for n in range(1000)}
    refuse_schema({"$defs": {"a": shared}, "properties": places})
    assert parts < 20
