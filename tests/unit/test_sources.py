"""Which files `refdesk ingest` takes, what it makes of them, and why it leaves others."""

import os
from pathlib import Path

import pytest

from shared.cli.failures import CliError
from shared.cli.sources import Document, Failure, Found, find_files, read


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files, given by relative path."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def ids(found: Found) -> list[str]:
    """The ids of the files that were found."""
    return [file.id for file in found.files]


def only(path: Path) -> Document | Failure:
    """What reading the one file `path` gives."""
    [item] = [item for file in find_files([path], []).files for item in read(file)]
    return item


def reason(path: Path) -> str:
    """Why the file can't be stored."""
    item = only(path)
    assert isinstance(item, Failure)
    return item.reason


def test_a_folder_is_read_recursively_and_ids_are_relative_paths(tmp_path: Path) -> None:
    write(tmp_path, {"b.md": "b", "a/x.txt": "x", "a/y.HTML": "y", "a/z/l.jsonl": "{}"})
    assert sorted(ids(find_files([tmp_path], []))) == ["a/x.txt", "a/y.HTML", "a/z/l.jsonl", "b.md"]


def test_hidden_files_and_folders_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path, {".git/a.md": "a", ".b.md": "b", "c.md": "c"})
    found = find_files([tmp_path], [])
    assert ids(found) == ["c.md"]
    assert found.left_out == []


def test_files_of_other_kinds_are_left_out_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "logo.png": b"\x89PNG", "paper.pdf": b"%PDF-1.7"})
    found = find_files([tmp_path], [])
    assert ids(found) == ["a.md"]
    left_out = {(Path(one.source).name, one.reason) for one in found.left_out}
    assert left_out == {
        ("logo.png", "not text, Markdown, HTML or JSON lines"),
        ("paper.pdf", "not text, Markdown, HTML or JSON lines"),
    }


def test_include_matches_names_and_relative_paths(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "b.rst": "b", "sub/c.md": "c", "sub/d.txt": "d"})
    assert ids(find_files([tmp_path], ["*.rst"])) == ["b.rst"]
    assert ids(find_files([tmp_path], ["sub/*"])) == ["sub/c.md", "sub/d.txt"]


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"secret.md": "s", "other/o.md": "o", "docs/a.md": "a"})
    (tmp_path / "docs/link.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "docs/folder").symlink_to(tmp_path / "other")
    (tmp_path / "docs/inside.md").symlink_to(tmp_path / "docs/a.md")
    found = find_files([tmp_path / "docs"], [])
    assert ids(found) == ["a.md", "inside.md"]
    assert [one.reason for one in found.left_out] == ["a link that leaves the folder"]


def test_a_pipe_in_a_folder_does_not_hang_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    [left_out] = find_files([tmp_path], []).left_out
    assert left_out.reason == "not a regular file"


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"no file or folder .*nowhere"):
        find_files([tmp_path / "nowhere"], [])


@pytest.mark.parametrize(
    ("name", "form"),
    [("a.txt", "text"), ("a.md", "markdown"), ("a.markdown", "markdown"), ("a.htm", "html"),
     ("A.HTML", "html"), ("LICENSE", "text")],
)  # fmt: skip
def test_the_suffix_says_the_format(tmp_path: Path, name: str, form: str) -> None:
    write(tmp_path, {name: "words"})
    item = only(tmp_path / name)
    assert isinstance(item, Document)
    assert (item.id, item.text, item.format) == (name, "words", form)


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"\xef\xbb\xbfwords"})
    item = only(tmp_path / "a.txt")
    assert isinstance(item, Document)
    assert item.text == "words"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"caf\xe9", "not UTF-8 (byte 0xe9 at 3): save it as UTF-8"),
        (b"%PDF-1.7\n...", "a PDF, not text: turn it into text, Markdown or HTML first"),
        (b"a\0b", "binary data, not text"),
        (b"\x89PNG\r\n", "binary data, not text"),
        (b"", "empty: there is no text in it"),
        (b" \n\t\n", "empty: there is no text in it"),
        (b"x" * 2_000_001, "too large: 2000001 characters; at most 2000000"),
        (b"x" * 10_000_000, "too large: 10000000 bytes; at most 2000000 characters"),
    ],
    ids=["latin1", "pdf", "nul", "png", "empty", "blank", "long", "10MB"],
)
def test_what_is_not_text_is_refused_with_its_reason(
    tmp_path: Path, content: bytes, told: str
) -> None:
    write(tmp_path, {"a.txt": content})
    assert reason(tmp_path / "a.txt") == told


def test_links_that_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a"})
    (tmp_path / "dangling.md").symlink_to(tmp_path / "gone.md")
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    found = find_files([tmp_path], [])
    assert ids(found) == ["a.md"]
    told = [Path(one.source).name for one in (*found.left_out, *found.unreadable)]
    assert sorted(told) == ["dangling.md", "loop.md"]


def test_a_file_that_vanished_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "x"})
    found = find_files([tmp_path], [])
    (tmp_path / "a.txt").unlink()
    assert list(read(found.files[0])) == [
        Failure(str(tmp_path / "a.txt"), "No such file or directory", 1)
    ]


def test_json_lines_are_documents_each(tmp_path: Path) -> None:
    lines = '{"_id": 7, "text": "x", "title": "", "metadata": {"year": 2020}}\n\n' + (
        '{"id": "b", "text": "y", "url": "https://example.org", "format": "html"}\n'
    )
    write(tmp_path, {"a.jsonl": lines})
    [file] = find_files([tmp_path], []).files
    first, second = read(file)
    assert isinstance(first, Document)
    assert isinstance(second, Document)
    assert (first.id, first.title, first.metadata) == ("7", None, {"year": 2020})
    assert (second.id, second.url, second.format) == ("b", "https://example.org", "html")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"id": "a", "text": ', "not JSON"),
        ('{"id": "a", "text": NaN}', "not JSON"),
        (b'{"id": "a", "text": "\xff"}', "not JSON"),
        ('["a"]', "not a JSON object"),
        ('{"text": "x"}', "field id"),
        ('{"id": "", "text": "x"}', "field id"),
        ('{"id": true, "text": "x"}', "field id"),
        ('{"id": "a"}', "field text"),
        ('{"id": "a", "text": "  "}', "empty"),
        ('{"id": "a", "text": "x", "year": 1}', "unknown field 'year'"),
        ('{"id": "a", "text": "x", "title": 1}', "field title"),
        ('{"id": "a", "text": "x", "metadata": [1]}', "field metadata"),
        ('{"id": "a", "text": "x", "metadata": {"m": %s}}' % ("[" * 300 + "]" * 300), "too deep"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str | bytes, told: str) -> None:
    encoded = line.encode() if isinstance(line, str) else line
    write(tmp_path, {"a.ndjson": b'{"id": "ok", "text": "fine"}\n' + encoded})
    [file] = find_files([tmp_path], []).files
    first, second = read(file)
    assert isinstance(first, Document)
    assert isinstance(second, Failure)
    assert second.source.endswith("a.ndjson:2")
    assert told in second.reason
