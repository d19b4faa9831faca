"""Reading a test collection, and the message for each way in which one can be broken."""

from pathlib import Path

import pytest

from shared.cli.collection import corpus_name, read_collection
from shared.cli.failures import CliError

GOOD = {
    "corpus.jsonl": '{"_id": "d1", "title": "T", "text": "one"}\n{"_id": "d2", "text": "two"}\n',
    "queries.jsonl": '{"_id": "q1", "text": "one?"}\n{"_id": "q2", "text": "unjudged?"}\n',
    "qrels.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
}


def write(folder: Path, **changes: str | None) -> Path:
    """A good collection with some files changed, or left out (None)."""
    for name, content in {**GOOD, **changes}.items():
        if content is not None:
            (folder / name).write_text(content)
    return folder


def test_only_queries_with_judgements_are_kept(tmp_path: Path) -> None:
    collection = read_collection(write(tmp_path))
    assert [one.id for one in collection.documents] == ["d1", "d2"]
    assert collection.queries == {"q1": "one?"}
    assert collection.qrels == {"q1": {"d1": 2, "d2": 0}}


def test_another_split_has_files_of_its_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        **{
            "queries_dev.jsonl": '{"_id": "q9", "text": "nine?"}',
            "qrels_dev.tsv": "query-id\tcorpus-id\tscore\nq9\td2\t1\n",
        },
    )
    assert read_collection(tmp_path, "dev").queries == {"q9": "nine?"}
    with pytest.raises(CliError, match=r"no queries_train\.jsonl"):
        read_collection(tmp_path, "train")


def test_the_corpus_name_stands_for_the_documents(tmp_path: Path) -> None:
    folder = tmp_path / "My Set!"
    folder.mkdir()
    name = corpus_name(read_collection(write(folder)))
    assert name.startswith("eval-my-set-")
    assert corpus_name(read_collection(write(folder))) == name
    write(folder, **{"corpus.jsonl": '{"_id": "d1", "text": "other"}'})
    assert corpus_name(read_collection(folder)) != name


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("corpus.jsonl", None, "no corpus.jsonl"),
        ("corpus.jsonl", "", "holds no document"),
        ("corpus.jsonl", '{"_id": "d1", "text": "x"}\n{', "corpus.jsonl:2: not JSON"),
        ("corpus.jsonl", "[1]", "corpus.jsonl:1: not a JSON object"),
        ("corpus.jsonl", '{"_id": 1, "text": "x"}', "corpus.jsonl:1: the field _id"),
        ("corpus.jsonl", '{"_id": "a"}', "corpus.jsonl:1: the field text"),
        ("corpus.jsonl", '{"_id": "a", "text": "x"}\n{"_id": "a", "text": "y"}', ":2: document"),
        ("queries.jsonl", '{"_id": "q2", "text": "x"}', "judges query 'q1'"),
        ("qrels.tsv", "q1\td1\t1\n", "qrels.tsv:1: the header"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1 d1 1\n", "qrels.tsv:2: expected"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tyes\n", "qrels.tsv:2: expected"),
        ("qrels.tsv", "query-id\tcorpus-id\tscore\n", "holds no judgement"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    tmp_path: Path, name: str, content: str | None, told: str
) -> None:
    write(tmp_path, **{name: content})
    with pytest.raises(CliError) as caught:
        read_collection(tmp_path)
    assert told in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="no folder"):
        read_collection(tmp_path / "nowhere")
