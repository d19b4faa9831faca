"""Which files `refdesk ingest` takes, what it makes of them, and why it leaves others."""

import os
import random
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import orjson
import pytest

from services.retrieve.corpus.parsing import formats
from shared.cli import kinds
from shared.cli.failures import CliError
from shared.cli.folder import Found, Rules, find_files
from shared.cli.sources import READ_FAULTS, Entry, Failure, LeftOut, Limits
from shared.cli.upload import documents_of

LIMITS = Limits(file=64 << 20, line=1000)


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    """Write files, given by relative path."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def find(*paths: Path | str, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> Found:
    """The files that paths mean."""
    return find_files([str(path) for path in paths], Rules(include, exclude))


def ids(found: Found) -> list[str]:
    """The ids of the files that were found."""
    return [file.id for file in found.files]


def told(found: Found) -> dict[str, str]:
    """Why files were left out, or can't be read, by their names."""
    every: list[LeftOut | Failure] = [*found.left_out, *found.unreadable]
    return {Path(one.source).name: one.reason for one in every}


def items(path: Path, prefix: str = "") -> list[Entry | Failure | LeftOut]:
    """What the documents of a file are."""
    rules = Rules(prefix=prefix)
    return list(documents_of(find_files([str(path)], rules), rules, LIMITS))


def data(item: Entry | Failure | LeftOut) -> bytes:
    """The bytes of a document."""
    assert isinstance(item, Entry), item
    with item.open() as file:
        return file.read()


def failure(item: Entry | Failure | LeftOut) -> Failure:
    """A failure, which it must be."""
    assert isinstance(item, Failure), item
    return item


def test_the_files_of_a_folder_are_those_that_the_desk_reads() -> None:
    suffixes = {*formats._SUFFIXES, *formats._LANGUAGES}
    assert {f".{suffix}" for suffix in suffixes} == kinds.SUFFIXES
    assert {*formats._NAMES, *formats._PLAIN_NAMES} == kinds.NAMES


def test_a_folder_is_read_recursively_and_ids_are_relative_paths(tmp_path: Path) -> None:
    write(tmp_path, {"b.md": "b", "a/x.txt": "x", "a/y.HTML": "y", "a/z/p.pdf": "%PDF-1.7"})
    assert sorted(ids(find(tmp_path))) == ["a/x.txt", "a/y.HTML", "a/z/p.pdf", "b.md"]


def test_hidden_files_and_what_editors_leave_are_not_looked_at(tmp_path: Path) -> None:
    write(tmp_path, {".git/a.md": "a", ".b.md": "b", "c.md": "c", "c.md~": "c", "x.swp": "x"})
    found = find(tmp_path, include=["*"])
    assert ids(found) == ["c.md"]
    assert found.left_out == []


def test_files_of_other_kinds_are_left_out_with_a_reason(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "logo.png": b"\x89PNG", "old.zip": b"PK", "Makefile": "all:"})
    found = find(tmp_path)
    assert sorted(ids(found)) == ["Makefile", "a.md"]
    assert told(found) == {
        "logo.png": "of a kind that is not read",
        "old.zip": "an archive: name it itself, or with --include",
    }


def test_include_and_exclude_match_names_and_relative_paths(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "b.weird": "b", "sub/c.md": "c", "sub/deep/d.txt": "d"})
    assert ids(find(tmp_path, include=["*.weird"])) == ["b.weird"]
    assert ids(find(tmp_path, include=["sub/*"])) == ["sub/c.md", "sub/deep/d.txt"]
    assert ids(find(tmp_path, exclude=["deep", "a.*", "*.weird"])) == ["sub/c.md"]
    assert ids(find(tmp_path, include=["*.md"], exclude=["sub"])) == ["a.md"]


def test_a_glob_that_the_shell_left_is_read_with_ids_relative_to_its_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "b.txt": "b", "sub/a.md": "c", "sub/deep/d.md": "d"})
    assert ids(find(tmp_path / "*.md")) == ["a.md"]
    assert ids(find(tmp_path / "**/*.md")) == ["a.md", "sub/a.md", "sub/deep/d.md"]
    assert ids(find(tmp_path / "s*")) == ["sub/a.md", "sub/deep/d.md"]
    assert ids(find(tmp_path / "**")) == ["a.md", "b.txt", "sub/a.md", "sub/deep/d.md"]
    with pytest.raises(CliError, match=r"nothing matches .*\*\.pdf"):
        find(tmp_path / "*.pdf")


def test_the_prefix_stands_before_every_id(tmp_path: Path) -> None:
    write(tmp_path, {"d/a.md": "a", "d/b.jsonl": '{"id": "1", "text": "x"}'})
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        archive.writestr("in/c.md", "c")
    rules = Rules(prefix="p/")
    found = find_files([str(tmp_path / "d"), str(tmp_path / "c.zip")], rules)
    assert [one.id for one in documents_of(found, rules, LIMITS) if isinstance(one, Entry)] == [
        "p/a.md", "p/1", "p/in/c.md",
    ]  # fmt: skip


def test_links_that_leave_the_folder_are_not_followed(tmp_path: Path) -> None:
    write(tmp_path, {"secret.md": "s", "other/o.md": "o", "docs/a.md": "a"})
    (tmp_path / "docs/link.md").symlink_to(tmp_path / "secret.md")
    (tmp_path / "docs/folder").symlink_to(tmp_path / "other")
    (tmp_path / "docs/inside.md").symlink_to(tmp_path / "docs/a.md")
    for given in (tmp_path / "docs", tmp_path / "docs/*"):
        found = find(given)
        assert "a.md" in ids(found)
        assert "inside.md" in ids(found)
        assert told(found)["link.md"] == "a link that leaves the folder"
    assert told(find(tmp_path / "docs"))["folder"] == "a link to a folder"


def test_a_pipe_does_not_hang_the_command(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    write(tmp_path, {"a.md": "a"})
    for paths in ([tmp_path], [tmp_path / "pipe.txt", tmp_path / "a.md"], [tmp_path / "*"]):
        found = find(*paths)
        assert ids(found) == ["a.md"]
        assert told(found) == {"pipe.txt": "not a regular file"}


def test_a_path_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"no file or folder .*nowhere"):
        find(tmp_path / "nowhere")


def test_paths_in_which_there_is_nothing_are_known(tmp_path: Path) -> None:
    write(tmp_path, {"full/a.md": "a"})
    (tmp_path / "empty").mkdir()
    assert find(tmp_path / "full", tmp_path / "empty").empty == [str(tmp_path / "empty")]


def test_a_file_that_is_named_twice_is_taken_once(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a", "sub/b.md": "b"})
    assert ids(find(tmp_path, tmp_path / "*.md", tmp_path / "a.md")) == ["a.md", "sub/b.md"]


def test_links_that_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, {"a.md": "a"})
    (tmp_path / "dangling.md").symlink_to(tmp_path / "gone.md")
    (tmp_path / "loop.md").symlink_to(tmp_path / "loop.md")
    found = find(tmp_path)
    assert ids(found) == ["a.md"]
    assert sorted(told(found)) == ["dangling.md", "loop.md"]


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(2_000_000_000)
    [item] = items(tmp_path)
    assert failure(item).reason == "too large: 2,000 MB; at most 64 MiB: split it"
    assert failure(item).id == "huge.txt"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        (b"\xff.md", "its name is not UTF-8: rename it"),
        (b"a\nb.md", "its name holds a control character, such as a line break: rename it"),
        (b"/".join([b"x" * 200] * 3) + b".md", "its name is too long: at most 512 characters"),
    ],
    ids=["bytes", "line break", "long"],
)
def test_a_name_that_can_not_be_an_id_is_refused(tmp_path: Path, name: bytes, reason: str) -> None:
    path = os.path.join(os.fsencode(tmp_path), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    Path(os.fsdecode(path)).write_text("words")
    [item] = items(tmp_path)
    assert failure(item).reason.startswith(reason)


# --- a document in each line -----------------------------------------------------------------


def test_json_lines_are_documents_each(tmp_path: Path) -> None:
    lines = '{"_id": 7, "text": "x", "title": "", "metadata": {"year": 2020}}\n\n' + (
        '{"id": "b", "text": "y", "url": "https://example.org", "format": "html"}\n'
    )
    write(tmp_path, {"a.jsonl": lines})
    first, second = items(tmp_path / "a.jsonl")
    assert orjson.loads(data(first)) == {"id": "7", "text": "x", "metadata": {"year": 2020}}
    assert orjson.loads(data(second))["url"] == "https://example.org"
    assert isinstance(second, Entry)
    assert second.state == {
        "format": "html",
        "url": "https://example.org",
        "sha256": "a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa",
    }


def test_what_only_the_desk_can_judge_is_sent_as_it_is(tmp_path: Path) -> None:
    lines = ['{"id": "a"}', '{"id": "a", "text": 1}', '{"id": "a", "text": "x", "year": 1}']
    write(tmp_path, {"a.jsonl": "\n".join(lines)})
    for item, line in zip(items(tmp_path / "a.jsonl"), lines, strict=True):
        assert orjson.loads(data(item)) == orjson.loads(line)
        assert isinstance(item, Entry)
        assert item.state == {}


def test_a_line_that_is_too_long_costs_itself_alone(tmp_path: Path) -> None:
    long = '{"id": "long", "text": "%s"}' % ("x" * 5000)
    write(tmp_path, {"a.jsonl": f'{long}\n{{"id": "b", "text": "y"}}'})
    first, second = items(tmp_path / "a.jsonl")
    assert failure(first).source.endswith("a.jsonl:1")
    assert failure(first).reason.startswith("too large")
    assert isinstance(second, Entry)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"id": "a", "text": ', "not JSON"),
        ('{"id": "a", "text": NaN}', "not JSON"),
        (b'{"id": "a", "text": "\xff"}', "not JSON"),
        ('["a"]', "not a JSON object"),
        ('{"text": "x"}', "field id"),
        ('{"id": "", "text": "x"}', "field id"),
        ('{"id": true, "text": "x"}', "field id"),
        ('{"id": "a\\nb", "text": "x"}', "its id holds a control character"),
        ('{"id": "a", "text": "x", "metadata": {"m": %s}}' % ("[" * 300 + "]" * 300), "too deep"),
    ],
)
def test_a_bad_line_is_named_by_its_number(tmp_path: Path, line: str | bytes, reason: str) -> None:
    encoded = line.encode() if isinstance(line, str) else line
    write(tmp_path, {"a.ndjson": b'{"id": "ok", "text": "fine"}\n' + encoded})
    first, second = items(tmp_path / "a.ndjson")
    assert isinstance(first, Entry)
    assert failure(second).source.endswith("a.ndjson:2")
    assert reason in failure(second).reason


# --- archives --------------------------------------------------------------------------------


def test_a_zip_is_like_a_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("b.md", "b")
        archive.writestr("sub/c.txt", "c")
        archive.writestr(".hidden/x.md", "x")
        archive.writestr("logo.png", "x")
        archive.writestr("more.zip", "x")
    documents = [one for one in items(tmp_path / "a.zip") if isinstance(one, Entry)]
    assert [(one.id, data(one)) for one in documents] == [("b.md", b"b"), ("sub/c.txt", b"c")]
    left_out = [one for one in items(tmp_path / "a.zip") if isinstance(one, LeftOut)]
    assert [one.reason for one in left_out] == [
        "of a kind that is not read", "an archive in an archive: unpack it first",
    ]  # fmt: skip


def test_a_zip_in_a_folder_is_taken_by_name_and_its_ids_say_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    with zipfile.ZipFile(tmp_path / "sub/a.zip", "w") as archive:
        archive.writestr("b.md", "b")
    rules = Rules(include=["*.zip", "*.md"])
    found = find_files([str(tmp_path)], rules)
    assert [one.id for one in documents_of(found, rules, LIMITS) if isinstance(one, Entry)] == [
        "sub/a.zip/b.md"
    ]


def test_bad_members_of_a_zip_cost_only_themselves(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../out.md", "x")
        archive.writestr("/root.md", "x")
        archive.writestr("bomb.txt", b"\0" * 50_000_000)
        link = zipfile.ZipInfo("link.md")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("locked.md", "x")
        archive.writestr("caf\u00e9.md", "x")
        archive.writestr("good.md", "x")
    raw = bytearray(path.read_bytes())
    for sign, flags in (
        (b"PK\x01\x02", 8),
        (b"PK\x03\x04", 6),
    ):  # of the central and the local head
        name = 46 if flags == 8 else 30
        at = raw.find(b"locked.md", 0 if flags == 6 else raw.find(b"PK\x01\x02"))
        assert raw[at - name : at - name + 4] == sign
        raw[at - name + flags] |= 1
    path.write_bytes(raw)
    found = items(path)
    reasons = {Path(one.source).name: one.reason for one in found if not isinstance(one, Entry)}
    assert reasons == {
        "out.md": "its name leads out of the archive",
        "root.md": "its name leads out of the archive",
        "bomb.txt": "it would grow more than 200-fold: an archive bomb, or nothing to read",
        "link.md": "a link in an archive",
        "locked.md": "it is encrypted: unpack it first",
    }
    assert [one.id for one in found if isinstance(one, Entry)] == ["caf\u00e9.md", "good.md"]


def test_whatever_is_damaged_in_a_zip_is_told(tmp_path: Path) -> None:
    path, chance = tmp_path / "a.zip", random.Random(1)
    with zipfile.ZipFile(path, "w") as archive:
        for way in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
            archive.writestr(f"ö{way}.txt", b"hello world " * 200, way)
    whole = path.read_bytes()
    for _ in range(500):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(whole))] = chance.randrange(256)
        path.write_bytes(damaged)
        for item in items(path):
            with suppress(*READ_FAULTS):
                assert not isinstance(item, Entry) or data(item) is not None


def test_a_zip_that_is_none_is_reported(tmp_path: Path) -> None:
    write(tmp_path, {"a.zip": b"PK\x03\x04 and nothing more"})
    [item] = items(tmp_path / "a.zip")
    assert "can't be read" in failure(item).reason
    assert failure(item).id is None
