"""The embedding clients of well-known packages, unchanged, against the running embed.

Packages that report their use are imported once they can't: within the tests.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.guarded import KEY, service_with_a_key
from tests.suite import Suite

TEXTS = ["a cat", "a tax return", "a kitten"]
MODEL = "all-MiniLM-L6-v2"

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def url(suite: Suite) -> str:
    return suite.url("embed")


@pytest.fixture(scope="module")
def guarded(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with service_with_a_key("embed", tmp_path_factory.mktemp("guarded")) as base:
        yield base


def assert_sensible(vectors: Any) -> None:
    found = np.array(vectors, np.float32)
    assert found.shape == (3, 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    assert found[0] @ found[2] > found[0] @ found[1] + 0.3


async def test_openai_asks_asynchronously_many_at_once(url: str) -> None:
    import openai

    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any") as client:
        # base64 is what it asks for by default, and what it decodes unseen.
        answer = await client.embeddings.create(input=TEXTS, model=MODEL)
        assert_sensible([item.embedding for item in answer.data])
        floats = await client.embeddings.create(input=TEXTS, model=MODEL, encoding_format="float")
        assert [item.embedding for item in floats.data] == [
            pytest.approx(item.embedding) for item in answer.data
        ]
        many = await client.embeddings.create(
            input=[f"{place % 50}" for place in range(2048)], model=MODEL, dimensions=32
        )
    assert [item.index for item in many.data] == list(range(2048))
    assert all(len(item.embedding) == 32 for item in many.data)
    assert many.data[0].embedding == many.data[50].embedding != many.data[1].embedding


def test_openai_sends_its_key_and_raises_its_own_errors(url: str, guarded: str) -> None:
    import openai

    with openai.OpenAI(base_url=f"{guarded}/v1", api_key=KEY) as client:
        assert len(client.embeddings.create(input="x", model=MODEL).data) == 1
    with openai.OpenAI(base_url=f"{guarded}/v1", api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError, match="valid API key") as no_key:
            client.embeddings.create(input="x", model=MODEL)
        assert no_key.value.code == "bad_key"
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any") as client:
        with pytest.raises(openai.BadRequestError) as empty:
            client.embeddings.create(input=["x", ""], model=MODEL)
        assert (empty.value.param, empty.value.code) == ("input.1", "invalid_request")
        with pytest.raises(openai.NotFoundError, match=MODEL):  # names what there is
            client.embeddings.create(input="x", model="text-embedding-3-small")


def langchain(base_url: str, key: str = "any", **options: Any) -> Any:
    from langchain_openai import OpenAIEmbeddings

    options |= {"base_url": f"{base_url}/v1", "api_key": key}
    return OpenAIEmbeddings(model=MODEL, max_retries=0, **options)


async def test_langchain_embeds_texts_once_it_is_told_to_send_them(url: str) -> None:
    embeddings = langchain(url, check_embedding_ctx_length=False)
    assert_sensible(embeddings.embed_documents(TEXTS))
    assert_sensible([embeddings.embed_query(text) for text in TEXTS])
    assert_sensible(await embeddings.aembed_documents(TEXTS))
    short = langchain(url, check_embedding_ctx_length=False, dimensions=64)
    assert len(short.embed_query("a cat")) == 64


def test_langchain_left_as_it_is_shows_which_setting_to_change(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import openai
    import tiktoken.registry

    # In place of the vocabulary that it would download: any makes ids that mean nothing here.
    name = "cl100k_base"
    bytewise = tiktoken.Encoding(
        name,
        pat_str=r"[\s\S]",
        mergeable_ranks={bytes([byte]): byte for byte in range(256)},
        special_tokens={},
    )
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, name, bytewise)
    with pytest.raises(openai.BadRequestError, match=r"check_embedding_ctx_length=False"):
        langchain(url).embed_query("a cat")


def test_langchain_sends_its_key(guarded: str) -> None:
    import openai

    texts_only = {"check_embedding_ctx_length": False}
    assert len(langchain(guarded, KEY, **texts_only).embed_query("a cat")) == 384
    with pytest.raises(openai.AuthenticationError, match="valid API key"):
        langchain(guarded, "wrong", **texts_only).embed_query("a cat")


async def test_the_client_of_huggingface_asks_asynchronously_and_compares(url: str) -> None:
    from huggingface_hub import AsyncInferenceClient, InferenceClient

    async with AsyncInferenceClient(model=url) as client:
        assert_sensible(await client.feature_extraction(TEXTS))
    similarity = InferenceClient(model=f"{url}/similarity").sentence_similarity(
        TEXTS[0], other_sentences=TEXTS[1:]
    )
    assert similarity[1] > similarity[0] + 0.3


def test_the_client_of_huggingface_sends_its_token(guarded: str) -> None:
    from huggingface_hub import InferenceClient
    from huggingface_hub.errors import HfHubHTTPError

    client = InferenceClient(model=guarded, token=KEY)
    assert client.feature_extraction("a cat").shape == (1, 384)
    with pytest.raises(HfHubHTTPError) as refused:
        InferenceClient(model=guarded, token="wrong").feature_extraction("a cat")
    assert refused.value.response.status_code == 401
    assert set(refused.value.response.json()) == {"error", "error_type"}


def haystack(base_url: str, key: str = "any") -> tuple[Any, Any]:
    """Its embedder of a query and its embedder of documents."""
    from haystack.utils import Secret
    from haystack_integrations.components.embedders import huggingface_api

    options: dict[str, Any] = {
        "api_type": "text_embeddings_inference",
        "api_params": {"url": base_url},
        "token": Secret.from_token(key),
    }
    text = huggingface_api.HuggingFaceAPITextEmbedder(**options)
    return text, huggingface_api.HuggingFaceAPIDocumentEmbedder(progress_bar=False, **options)


def test_haystack_embeds_queries_and_documents_by_tei(url: str) -> None:
    from haystack import Document

    query, documents = haystack(url)
    found = documents.run(documents=[Document(content=text) for text in TEXTS])["documents"]
    assert_sensible([one.embedding for one in found])
    assert query.run(text=TEXTS[0])["embedding"] == pytest.approx(found[0].embedding, abs=1e-4)


def test_haystack_sends_its_token(guarded: str) -> None:
    from huggingface_hub.errors import HfHubHTTPError

    assert len(haystack(guarded, KEY)[0].run(text="a cat")["embedding"]) == 384
    with pytest.raises(HfHubHTTPError, match="401"):
        haystack(guarded, "wrong")[0].run(text="a cat")
