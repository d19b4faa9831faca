"""The ids of MCP: corpus and document in one text."""

import pytest

from services.retrieve.surfaces.mcp_tools import join_id, split_id
from shared.errors import ApiError


@pytest.mark.parametrize("document_id", ["a", "a/b", "/", "//", "#0", " ", "ä♔", "shelf/a"])
def test_an_id_of_corpus_and_document_can_be_taken_apart_again(document_id: str) -> None:
    assert split_id(join_id("shelf", document_id)) == ("shelf", document_id)


@pytest.mark.parametrize("joined", ["", "shelf", "shelf/", "/moon"])
def test_another_text_is_no_id(joined: str) -> None:
    with pytest.raises(ApiError) as caught:
        split_id(joined)
    assert (caught.value.status, caught.value.param) == (404, "id")
