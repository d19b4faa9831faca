"""The Python client's values are those of the desk's own OpenAPI document: none is forgotten."""

import inspect
from collections.abc import Mapping
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from shared.desk import calls, models
from tests.suite import Suite

# By the desk's name of each what the client calls it.
MODELS: Mapping[str, type[BaseModel]] = {
    "ArmVerdict": models.ArmVerdict,
    "ChunkVerdict": models.ChunkVerdict,
    "Corpus": models.Corpus,
    "Document": models.NewDocument,
    "DocumentBody": models.Document,
    "DocumentLine": models.DocumentLine,
    "DocumentPage": models.DocumentPage,
    "DocumentVerdict": models.Verdict,
    "DroppedBody": models.Dropped,
    "ErrorFields": models.Fault,
    "GivenChunk": models.GivenChunk,
    "Hit": models.Hit,
    "IngestResponse": models.Ingested,
    "Position": models.Position,
    "RecencyBody": models.CorpusRecency,
    "RetrieveResponse": models.Retrieved,
    "Searched": models.Searched,
    "SignalsBody": models.Signals,
    "Skipped": models.Skipped,
    "SparseVector": models.SparseVector,
    "Stamp": models.Stamp,
    "Twin": models.Twin,
    "WhyNotResponse": models.WhyNot,
}
OPTIONS: Mapping[str, Any] = {
    "Expansion": models.Expand,
    "Fusion": models.Fusion,
    "Message": models.Turn,
    "Recency": models.Recency,
    "RecencyBody": models.RecencyDefault,
    "RetrieveRequest": models.Options,
    "TextPart-Input": models.TextPart,
}
# What arguments of their own are for.
ARGUMENTS = {"RetrieveRequest": {"query", "messages", "corpora"}}


@pytest.fixture(scope="module")
def schemas(suite: Suite) -> dict[str, Any]:
    """The shapes of the desk's bodies, by name."""
    document = httpx.get(f"{suite.url('retrieve')}/openapi.json", timeout=60).json()
    found: dict[str, Any] = document["components"]["schemas"]
    return found


def kinds(schema: Mapping[str, Any], named: Mapping[str, Any]) -> set[str]:
    """What JSON may be there: `array of string`, `null`, … A closed set of words is named, too."""
    if "$ref" in schema:
        return kinds(named[schema["$ref"].rpartition("/")[2]], named)
    if "anyOf" in schema:
        return {kind for one in schema["anyOf"] for kind in kinds(one, named)}
    match schema["type"]:
        case "array":
            items = schema.get("prefixItems", [schema.get("items", {})])
            return {f"array of {kind}" for one in items for kind in kinds(one, named)}
        case "object" if isinstance(schema.get("additionalProperties"), dict):
            return {f"object of {kind}" for kind in kinds(schema["additionalProperties"], named)}
        case kind:
            return {kind}


def words(schema: Mapping[str, Any]) -> set[str]:
    return set(schema.get("enum", ()))


@pytest.mark.parametrize("name", MODELS)
def test_a_value_has_the_fields_that_the_desk_gives_it(schemas: dict[str, Any], name: str) -> None:
    ours = MODELS[name].model_json_schema()
    theirs = schemas[name]["properties"]
    assert ours["properties"].keys() == theirs.keys()
    for field, schema in ours["properties"].items():
        told, expected = kinds(schema, ours.get("$defs", {})), kinds(theirs[field], schemas)
        assert {kind.partition(" of ")[0] for kind in told} == {
            kind.partition(" of ")[0] for kind in expected
        }, field
        if "object" not in told | expected:  # one of ours may hold less than a model of theirs
            assert told == expected, field
        if words(schema):
            assert words(schema) == words(theirs[field]), field


@pytest.mark.parametrize("name", OPTIONS)
def test_what_can_be_asked_for_is_what_the_desk_takes(schemas: dict[str, Any], name: str) -> None:
    ours = set(OPTIONS[name].__annotations__)
    assert ours | ARGUMENTS.get(name, set()) == schemas[name]["properties"].keys()


def test_a_corpus_can_be_made_with_every_setting(schemas: dict[str, Any]) -> None:
    settings = set(inspect.signature(calls.create_corpus).parameters) - {"name"}
    assert settings == schemas["CorpusSettings"]["properties"].keys()


def test_no_value_of_the_client_is_left_out_here() -> None:
    of_module = {
        one
        for _, one in inspect.getmembers(models, inspect.isclass)
        if one.__module__ == models.__name__ and not one.__name__.startswith("_")
    }
    assert of_module == {*MODELS.values(), *OPTIONS.values()}
