"""What the OpenAPI documents say holds: for good bodies, and for bad ones."""

import asyncio
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi import checks

from shared.settings import ServiceName
from tests.desk import Desk
from tests.suite import Suite
from tests.writers import PORT, Serve, chat

# Types of bodies that it has no writer for: bytes as they are.
for _type in ("application/vnd.sqlite3", "application/vnd.apache.parquet", "application/zip"):
    schemathesis.serializer.alias(_type, "application/octet-stream")

# A document can't say which models and prompts there are, nor which texts fit a window.
_BEYOND_A_DOCUMENT = [checks.positive_data_acceptance]


def check_every_operation(url: str, examples: int, *, same_every_time: bool) -> set[int]:
    """Send `examples` good and as many bad requests to each operation; the statuses that came.

    Raises where an answer is a 5xx, or has a shape that the document does not name.
    """
    document = httpx.get(f"{url}/openapi.json", timeout=60).json()
    statuses: set[int] = set()
    schema: Any = schemathesis.openapi.from_dict(document)
    for operation in schema.get_all_operations():
        for mode in GenerationMode:

            @settings(
                max_examples=examples,
                derandomize=same_every_time,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(operation.ok().as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case[Any]) -> None:
                answer = case.call(base_url=url)
                statuses.add(answer.status_code)
                excluded: list[Any] = list(_BEYOND_A_DOCUMENT)
                if answer.status_code in (413, 431):  # not among those that it counts as a refusal
                    excluded.append(checks.negative_data_rejection)
                try:
                    case.validate_response(answer, excluded_checks=excluded)
                except FailureGroup as failures:  # it shows bodies whole, which may be megabytes
                    found = "; ".join(str(one)[:300] for one in failures.exceptions)
                    told = f"{case.method} {case.path} {answer.status_code} {str(case.body)[:300]}"
                    pytest.fail(f"{told}: {found}")

            try:
                send()
            except Unsatisfiable:  # no request of an operation without a body or fields is bad
                assert mode is GenerationMode.NEGATIVE
    return statuses


@pytest.mark.parametrize(
    "service", ["embed", "rerank", pytest.param("retrieve", marks=pytest.mark.long)]
)
def test_every_answer_has_a_shape_that_the_document_names(
    suite: Suite, service: ServiceName
) -> None:
    statuses = check_every_operation(suite.url(service), 3, same_every_time=True)
    assert {200, 400, 422} <= statuses


@pytest.mark.long
@pytest.mark.parametrize("service", ["embed", "rerank", "retrieve"])
def test_so_has_every_answer_to_many_more_requests(suite: Suite, service: ServiceName) -> None:
    check_every_operation(suite.url(service), 500, same_every_time=False)


@pytest.mark.parametrize("examples", [4, pytest.param(200, marks=pytest.mark.long, id="many more")])
async def test_so_has_every_answer_of_the_writers(serve: Serve, examples: int) -> None:
    async with serve(Desk()) as client:
        await asyncio.to_thread(
            check_every_operation, str(client.base_url), examples, same_every_time=examples < 100
        )
        document = (await client.get("/openapi.json")).json()
    assert_every_error_has_a_shape(document)


async def test_so_has_every_event_of_their_streams(serve: Serve) -> None:
    options = {"stream": True, "refdesk": {"source_events": True}}
    bodies = {
        "/v1/chat/completions": chat(PORT, **options),
        "/v1/responses": {"input": PORT, **options},
    }

    def check(url: str) -> None:
        schema: Any = schemathesis.openapi.from_dict(httpx.get(f"{url}/openapi.json").json())
        for path, body in bodies.items():
            case = schema[path]["POST"].Case(body=body, media_type="application/json")
            answer = case.call(base_url=url)
            assert answer.headers["content-type"][0].startswith("text/event-stream")
            case.validate_response(answer)

    async with serve(Desk()) as client:
        await asyncio.to_thread(check, str(client.base_url))


@pytest.mark.parametrize("service", ["embed", "rerank"])
def test_the_document_names_a_shape_for_every_error(suite: Suite, service: ServiceName) -> None:
    assert_every_error_has_a_shape(
        httpx.get(f"{suite.url(service)}/openapi.json", timeout=60).json()
    )


def assert_every_error_has_a_shape(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert set(operation["responses"]) == {"200", "default"}, path
    assert "HTTPValidationError" not in document["components"]["schemas"]
