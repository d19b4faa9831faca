"""Exports: they say everything, and are taken back."""

import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.retrieve.corpus.catalog import Catalog
from services.retrieve.corpus.protocol import Document, document_or_unfit
from services.retrieve.corpus.transfer import export, parquet
from services.retrieve.stores.corpus import CorpusSpec
from shared.errors import ApiError
from tests.corpora import STAMP, document, weighed
from tests.transfers import METADATA, shelf, shelf_documents


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[Catalog]:
    with shelf(tmp_path / "data") as catalog:
        yield catalog


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """That of the transfers."""
    path = tmp_path / "data" / "transfers"
    path.mkdir(parents=True)
    return path


def as_sent(lines: Iterator[bytes]) -> list[dict[str, Any]]:
    return [orjson.loads(line) for part in lines for line in part.splitlines()]


def test_an_export_is_documents_as_they_are_sent(catalog: Catalog, folder: Path) -> None:
    store = catalog.get("shelf")
    found = as_sent(export.lines(store, folder, vectors=True))
    assert [one["id"] for one in found] == ["plain", "rich/ä ☂", "secret"]
    rich = found[1]
    assert (rich["format"], rich["metadata"], rich["readers"]) == ("pdf", METADATA, ["hr", "anna"])
    assert found[2]["readers"] == []
    assert rich["stamp"] == {
        "model": STAMP.model,
        "revision": STAMP.revision,
        "dimension": STAMP.dimension,
    }
    for one in (*found, *as_sent(export.lines(store, folder, vectors=False))):
        assert isinstance(document_or_unfit(one), Document), document_or_unfit(one)


def test_a_text_that_was_parsed_is_not_parsed_again_when_it_comes_back(
    catalog: Catalog, folder: Path
) -> None:
    catalog.get("shelf").write([replace(document("page", ["a < b"]), format="html")])
    with_vectors, without = (
        {
            one["id"]: one["format"]
            for one in as_sent(export.lines(catalog.get("shelf"), folder, vectors=vectors))
        }
        for vectors in (True, False)
    )
    assert (with_vectors["page"], without["page"]) == ("html", "text")
    assert (with_vectors["rich/ä ☂"], without["rich/ä ☂"]) == ("pdf", "pdf")


@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
def test_parquet_says_what_ndjson_says(
    catalog: Catalog, folder: Path, vectors: bool, sparse: bool
) -> None:
    store = catalog.get("shelf")
    if sparse:
        catalog.create(CorpusSpec("words"), STAMP, sparse=True)
        store = catalog.get("words")
        store.write([weighed(one) for one in shelf_documents()])
    stamp = store.info.stamp if vectors else None
    documents = export.documents(store, folder)
    data = b"".join(parquet.pack(documents, stamp, sparse=sparse))
    table = pq.read_table(io.BytesIO(data))
    expected = as_sent(export.lines(store, folder, vectors=vectors))
    assert table.column("id").to_pylist() == [one["id"] for one in expected]
    if vectors:
        numbers = np.array(
            [chunk["vector"] for row in table.column("chunks").to_pylist() for chunk in row]
        )
        stored = [one.vectors for one in export.documents(store, folder)]
        assert (numbers.astype(np.float32) == np.concatenate(stored)).all()
    found = list(parquet.rows(io.BytesIO(data)))
    given = [{k: v for k, v in one.items() if v is not None} for one in expected]
    assert found == given


def test_parquet_of_others_is_read_too(folder: Path) -> None:
    import pyarrow as pa

    first = {"id": "a", "text": "one", "chunks": [{"start": 0, "end": 3, "vector": [0.6, 0.8]}]}
    second = {"id": "b", "text": "two", "metadata": {"year": 2026, "author": None}}
    rows = [{**first, "metadata": None}, {**second, "chunks": None}]
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file)
    file.seek(0)
    assert list(parquet.rows(file)) == [first, {**second, "metadata": {"year": 2026}}]


def test_a_text_that_stands_for_that_of_many_rows_is_not_read_for_all_of_them_at_once() -> None:
    many, length = 64, 20_000_000
    texts = pa.DictionaryArray.from_arrays(
        pa.array([0] * many, pa.int32()), pa.array(["a" * length])
    )
    file = io.BytesIO()
    table = pa.table({"id": [f"d{number}" for number in range(many)], "text": texts})
    pq.write_table(
        table, file, compression="zstd", dictionary_pagesize_limit=2 * length, store_schema=False
    )
    assert file.tell() < 10_000
    before = pa.default_memory_pool().max_memory()
    assert len(next(parquet.rows(file))["text"]) == length
    assert pa.default_memory_pool().max_memory() < before + 5 * length


def test_what_is_no_parquet_is_refused() -> None:
    with pytest.raises(ApiError) as refused:
        list(parquet.rows(io.BytesIO(b"PAR1 rubbish PAR1")))
    assert (refused.value.status, refused.value.code) == (422, "broken_file")


def test_what_is_deleted_during_an_export_is_left_out_and_what_changes_comes_as_it_is_then(
    catalog: Catalog, folder: Path
) -> None:
    store = catalog.get("shelf")
    store.write([document(f"d{number:03}", [f"text {number}"]) for number in range(40)])
    lines = export.lines(store, folder, vectors=False)
    first = orjson.loads(next(lines))
    assert first["id"] == "d000"
    store.write([document("d039", ["changed"]), document("d999", ["new"])])
    store.delete(["d038"])
    rest = {one["id"]: one["text"] for one in as_sent(lines)}
    assert rest["d039"] == "changed"
    assert "d038" not in rest
    assert "d999" not in rest
