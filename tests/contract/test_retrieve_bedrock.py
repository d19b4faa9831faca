"""Amazon Bedrock's Retrieve on the desk, by boto3."""

import asyncio
import json
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from shared.auth import hash_key
from tests.library import DOCUMENTS, IDS, LIBRARY, QUERY, fill_library
from tests.shelf import desk
from tests.suite import Suite

MANY = 120  # over the 100 candidates that an arm finds by default


@pytest.fixture(scope="module")
def url(suite: Suite) -> str:
    url = suite.url("retrieve")
    fill_library(url)
    return url


@pytest.fixture(scope="module")
def many(url: str) -> str:
    """A corpus of MANY documents that have little in common."""
    name = "many-of-bedrock"
    httpx.put(f"{url}/corpora/{name}", timeout=60).raise_for_status()
    fill = {"documents": [{"id": f"{n:03}", "text": words(n)} for n in range(MANY)]}
    httpx.post(f"{url}/corpora/{name}/documents", json=fill, timeout=60).raise_for_status()
    return name


def words(seed: int) -> str:
    """A few made-up words."""
    letters = Random(seed)
    return " ".join("".join(letters.choices("abdegiklmnorstu", k=6)) for _ in range(8))


def bedrock(url: str, key: str = "", **more: Any) -> Any:
    """A client of Bedrock's that talks to the desk, with a key of the desk's if there is one."""

    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    def send_key(params: Any, **_: Any) -> None:
        if key:
            params["headers"]["Authorization"] = f"Bearer {key}"

    client = boto3.client(
        "bedrock-agent-runtime",
        endpoint_url=url,
        region_name="eu-central-1",
        config=Config(signature_version=UNSIGNED, retries={"max_attempts": 0}, **more),
    )
    client.meta.events.register("before-call.bedrock-agent-runtime", send_key)
    return client


@pytest.fixture(scope="module")
def client(url: str) -> Any:
    return bedrock(url)


def ask(client: Any, **more: Any) -> dict[str, Any]:
    search = {"numberOfResults": 10, **more}
    answer: dict[str, Any] = client.retrieve(
        knowledgeBaseId=LIBRARY,
        retrievalQuery={"text": QUERY},
        retrievalConfiguration={"vectorSearchConfiguration": search},
    )
    return answer


def found(client: Any, filter_: dict[str, Any]) -> set[str]:
    """The documents that a filtered search finds."""
    return {one["documentId"] for one in ask(client, filter=filter_)["retrievalResults"]}


def compare(word: str, key: str, value: Any) -> dict[str, Any]:
    return {word: {"key": key, "value": value}}


def test_a_corpus_is_a_knowledge_base(client: Any) -> None:
    answer = client.retrieve(knowledgeBaseId=LIBRARY, retrievalQuery={"text": QUERY})
    results = {one["documentId"]: one for one in answer["retrievalResults"]}
    assert set(results) == set(IDS)
    assert answer["retrievalResults"][0]["documentId"] == "sky/moon.md"
    assert "nextToken" not in answer
    moon, tides, _, chess = (results[id_] for id_ in IDS)
    assert moon["content"] == {"type": "TEXT", "text": DOCUMENTS[0]["text"]}
    assert moon["location"] == {"type": "WEB", "webLocation": {"url": DOCUMENTS[0]["url"]}}
    assert tides["location"] == {"type": "S3", "s3Location": {"uri": DOCUMENTS[1]["url"]}}
    assert chess["location"] == {"type": "CUSTOM", "customDocumentLocation": {"id": IDS[3]}}
    assert moon["metadata"] == {
        **DOCUMENTS[0]["metadata"],
        "x-amz-bedrock-kb-source-uri": DOCUMENTS[0]["url"],
        "x-amz-bedrock-kb-chunk-id": "sky/moon.md#0",
    }
    scores = [one["score"] for one in answer["retrievalResults"]]
    assert scores == sorted(scores, reverse=True)


def test_a_short_name_goes_behind_the_words_knowledge_base(client: Any, url: str) -> None:
    httpx.put(f"{url}/corpora/aws", timeout=60).raise_for_status()
    for id_ in (
        "knowledge-base/aws",
        "arn:aws:bedrock:eu-central-1:123456789012:knowledge-base/aws",
    ):
        answer = client.retrieve(knowledgeBaseId=id_, retrievalQuery={"text": QUERY})
        assert answer["retrievalResults"] == []


def test_pages_follow_each_other_without_gaps_and_repeats(client: Any) -> None:
    everything = [one["documentId"] for one in ask(client)["retrievalResults"]]
    pages = client.get_paginator("retrieve").paginate(
        knowledgeBaseId=LIBRARY,
        retrievalQuery={"text": QUERY},
        retrievalConfiguration={"vectorSearchConfiguration": {"numberOfResults": 3}},
    )
    paged = [[one["documentId"] for one in page["retrievalResults"]] for page in pages]
    assert [len(page) for page in paged] == [3, 1]
    assert [id_ for page in paged for id_ in page] == everything


@pytest.mark.parametrize("token", ["x", "WzEsMl0=", "bnVsbA==", "Wy0xLCJhIl0=", "[" * 2000, "ä"])
def test_a_token_of_another_question_is_refused(client: Any, token: str) -> None:
    with pytest.raises(client.exceptions.ValidationException, match="nextToken"):
        client.retrieve(knowledgeBaseId=LIBRARY, retrievalQuery={"text": QUERY}, nextToken=token)
    first = ask(client, numberOfResults=1)
    with pytest.raises(client.exceptions.ValidationException, match="nextToken"):
        client.retrieve(
            knowledgeBaseId=LIBRARY,
            retrievalQuery={"text": "another"},
            nextToken=first["nextToken"],
        )


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        (compare("equals", "topic", "sky"), IDS[:2]),
        (compare("notEquals", "topic", "sky"), IDS[2:]),
        (compare("greaterThan", "year", 2021), IDS[1:3]),
        (compare("greaterThanOrEquals", "year", 2021), IDS[:3]),
        (compare("lessThan", "year", 2023), IDS[:1]),
        (compare("lessThanOrEquals", "year", 2023), IDS[:2]),
        (compare("lessThan", "day", "2022-01-01"), IDS[:1]),
        (compare("in", "topic", ["sky", "kitchen"]), IDS[:3]),
        (compare("notIn", "topic", ["sky"]), IDS[2:]),
        (compare("listContains", "tags", "sea"), IDS[1:2]),
        (
            {"andAll": [compare("equals", "topic", "sky"), compare("equals", "year", 2023)]},
            IDS[1:2],
        ),
        (
            {"orAll": [compare("equals", "topic", "kitchen"), compare("equals", "year", 2023)]},
            IDS[1:3],
        ),
    ],
)
def test_filters_narrow_the_search_down(
    client: Any, filter_: dict[str, Any], expected: list[str]
) -> None:
    assert found(client, filter_) == set(expected)


@pytest.mark.parametrize(
    ("search", "place"),
    [
        ({"filter": compare("startsWith", "topic", "s")}, "filter.startsWith"),
        ({"filter": compare("stringContains", "topic", "k")}, "filter.stringContains"),
        ({"filter": {"andAll": [compare("startsWith", "a", "b"), {}]}}, "filter.andAll.0"),
        (
            {"filter": compare("greaterThan", "topic", "z")},
            "filter.greaterThan.value: must be a number or an ISO 8601 date for `greaterThan`",
        ),
        (
            {"filter": {"andAll": [compare("equals", "a", "b"), compare("in", "topic", "sky")]}},
            "filter.andAll.1.in.value: must be a list for `in`; for one value use `equals`",
        ),
        (
            {"filter": compare("equals", "topic", "x" * 5000)},
            "filter.equals.value",
        ),
        ({"numberOfResults": 0}, "numberOfResults"),
        ({"numberOfResults": 101}, "numberOfResults"),
        ({"overrideSearchType": "MAGIC"}, "overrideSearchType"),
        ({"rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL"}}, "rerankingConfiguration"),
    ],
)
def test_what_cannot_be_done_is_a_validation_exception(
    url: str, search: dict[str, Any], place: str
) -> None:
    client = bedrock(url, parameter_validation=False)
    with pytest.raises(client.exceptions.ValidationException) as caught:
        ask(client, **search)
    assert f"vectorSearchConfiguration.{place}" in caught.value.response["Error"]["Message"]


def nested(depth: int) -> dict[str, Any]:
    """A filter of one comparison behind so many junctions."""
    found = compare("equals", "a", 1)
    for _ in range(depth):
        found = {"andAll": [found]}
    return found


def deep_list(depth: int) -> Any:
    """A list in a list in a list …"""
    found: list[Any] = []
    for _ in range(depth):
        found = [found]
    return found


@pytest.mark.parametrize(
    ("filter_", "says"),
    [
        ({"equals": 3}, "filter.equals: must be an object"),
        ({"equals": {"key": "a"}}, "filter.equals: must be an object"),
        ({"andAll": {}}, "filter.andAll: must be a list"),
        ({"andAll": [7]}, "filter.andAll.0: must be an object"),
        ({"equals": {}, "in": {}}, "filter: must be an object of one comparison"),
        (nested(400), "is nested over"),
        ({"andAll": []}, "filter.andAll: must be a list of at least one filter"),
        # Refused before the rest is read, which is no filter.
        ({"orAll": [compare("equals", "a", 1)] * 257 + [7]}, "filter: holds more than 256"),
        (
            {"orAll": [{"andAll": [compare("equals", "a", 1)] * 20}] * 20 + [7]},
            "filter: holds more than 256",
        ),
        ([], "filter: must be a JSON object"),
        (compare("equals", "a", deep_list(400)), "filter.equals.value"),
    ],
)
def test_what_boto3_would_not_send_is_refused_too(
    url: str, filter_: dict[str, Any], says: str
) -> None:
    search = {"vectorSearchConfiguration": {"filter": filter_}}
    sent = {"retrievalQuery": {"text": QUERY}, "retrievalConfiguration": search}
    answer = httpx.post(f"{url}/knowledgebases/{LIBRARY}/retrieve", json=sent, timeout=60)
    assert answer.status_code == 422
    assert answer.json()["code"] == "ValidationException"
    assert says in answer.json()["message"]


def post(url: str, sent: Any, id_: str = LIBRARY) -> httpx.Response:
    return httpx.post(f"{url}/knowledgebases/{id_}/retrieve", json=sent, timeout=60)


@pytest.mark.parametrize("text", ["", "  "])
def test_a_blank_question_is_refused_in_bedrocks_words(url: str, text: str) -> None:
    answer = post(url, {"retrievalQuery": {"text": text}})
    assert answer.status_code == 422
    assert answer.json()["message"].startswith("retrievalQuery.text: is blank")
    assert "messages" not in answer.text


def test_an_id_that_is_too_long_is_refused_by_bedrocks_name_of_it(url: str) -> None:
    answer = post(url, {"retrievalQuery": {"text": "x"}}, "x" * 2049)
    assert answer.json()["message"].startswith("knowledgeBaseId: ")


def test_null_is_the_same_as_absent(url: str) -> None:
    asked = {"retrievalQuery": {"text": QUERY}}
    plain = post(url, asked).json()
    search = {"numberOfResults": None, "overrideSearchType": None, "filter": None}
    for nulls in (None, {"vectorSearchConfiguration": None}, {"vectorSearchConfiguration": search}):
        answer = post(url, {**asked, "retrievalConfiguration": nulls, "nextToken": None})
        assert answer.json() == plain


def test_a_page_of_one_knowledge_base_is_no_page_of_another(client: Any, url: str) -> None:
    httpx.put(f"{url}/corpora/aws-other", timeout=60).raise_for_status()
    first = ask(client, numberOfResults=1)
    with pytest.raises(client.exceptions.ValidationException, match="nextToken"):
        client.retrieve(
            knowledgeBaseId="knowledge-base/aws-other",
            retrievalQuery={"text": QUERY},
            retrievalConfiguration={"vectorSearchConfiguration": {"numberOfResults": 1}},
            nextToken=first["nextToken"],
        )


def test_pages_lead_to_more_than_an_arm_finds_by_default(client: Any, many: str) -> None:
    search = {"numberOfResults": 50, "overrideSearchType": "SEMANTIC"}
    pages = client.get_paginator("retrieve").paginate(
        knowledgeBaseId=f"knowledge-base/{many}",
        retrievalQuery={"text": QUERY},
        retrievalConfiguration={"vectorSearchConfiguration": search},
    )
    found = [one["documentId"] for page in pages for one in page["retrievalResults"]]
    assert len(found) == len(set(found)) == MANY


async def test_a_header_says_what_the_search_went_without(shelf: Path, suite: Suite) -> None:
    async with desk(shelf, embed=suite.url("embed")) as http:
        sent = {"retrievalQuery": {"text": QUERY}}
        answer = await http.post("/knowledgebases/shelf/retrieve", json=sent)
        assert answer.status_code == 200
        assert answer.headers["x-refdesk-degraded"] == "curate"


def test_only_the_vectors_are_searched_where_the_client_asks_for_it(client: Any) -> None:
    results = ask(client, overrideSearchType="SEMANTIC")["retrievalResults"]
    assert results[0]["documentId"] == "sky/moon.md"


def test_awss_exceptions_tell_of_the_key_and_of_the_knowledge_base(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    from botocore.exceptions import ClientError

    keys = tmp_path / "keys.json"
    entry = {"name": "one", "sha256": hash_key("k-one"), "corpora": ["shelf"]}
    keys.write_text(json.dumps({"keys": [entry]}))

    def failure(client: Any, name: str) -> tuple[str, str]:
        with pytest.raises(ClientError) as caught:
            client.retrieve(knowledgeBaseId=f"knowledge-base/{name}", retrievalQuery={"text": "x"})
        error = caught.value.response["Error"]
        return error["Code"], error["Message"].replace(name, "…")

    def check(url: str) -> None:
        for key in ("", "wrong"):
            assert failure(bedrock(url, key), "shelf")[0] == "AccessDeniedException"
        client = bedrock(url, "k-one")
        query = {"text": "How far away is the Moon?"}
        answer = client.retrieve(knowledgeBaseId="knowledge-base/shelf", retrievalQuery=query)
        assert len(answer["retrievalResults"]) == 5
        assert failure(client, "secret") == failure(client, "not-there")
        assert failure(client, "secret")[0] == "ResourceNotFoundException"

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as http:
            await asyncio.to_thread(check, str(http.base_url).rstrip("/"))

    asyncio.run(main())
