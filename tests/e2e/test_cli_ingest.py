"""`refdesk ingest`: a corpus is brought to what the files say, and to no more."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import pytest

from shared.cli import delivery
from shared.cli.http import Api
from shared.cli.sources import Entry
from shared.cli.upload import ensure_corpus, store
from shared.settings import Settings
from tests.e2e.command import one_error, refdesk, refdesk_process
from tests.e2e.conftest import PAGES
from tests.suite import Suite


@pytest.fixture
def desk(suite: Suite) -> Suite:
    """The suite, as far as ingest needs it."""
    suite.url("retrieve")
    return suite


def documents(desk: Suite, corpus: str) -> dict[str, int]:
    """The ids of what is stored, with their numbers of chunks."""
    answer = httpx.get(f"{desk.url('retrieve')}/corpora/{corpus}/documents?limit=1000", timeout=30)
    return {one["id"]: one["chunks"] for one in answer.json()["documents"]}


def jobs(desk: Suite, corpus: str) -> list[Any]:
    """The jobs that there were of a corpus, the newest first."""
    answer = httpx.get(f"{desk.url('retrieve')}/jobs?corpus={corpus}", timeout=30)
    return list(answer.json()["jobs"])


def summary(output: str) -> dict[str, int]:
    """The table at the end."""
    header, numbers = output.rstrip().splitlines()[-2:]
    names = header.replace("chunks written", "chunks").split()
    return {name: int(number) for name, number in zip(names, numbers.split(), strict=True)}


def counts(
    created: int = 0, replaced: int = 0, unchanged: int = 0, deleted: int = 0, failed: int = 0
) -> dict[str, int]:
    """What the table says, but for the chunks."""
    return locals()


def without_chunks(output: str) -> dict[str, int]:
    """The table at the end, but for the chunks."""
    return {name: number for name, number in summary(output).items() if name != "chunks"}


def failures(output: str) -> Iterator[str]:
    """The lines about documents that failed."""
    return (line for line in output.splitlines() if line.startswith("failed: "))


def test_a_folder_becomes_a_corpus_and_a_second_time_nothing_is_sent(
    desk: Suite, corpus: str, pages: Path
) -> None:
    first = refdesk_process("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert first.returncode == 0, first.stderr
    assert summary(first.stderr) == {**counts(created=3), "chunks": 3}
    assert set(documents(desk, corpus)) == set(PAGES)
    (pages / "tea.txt").write_text("Green tea is best brewed at seventy degrees.\n")
    second = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert summary(second.stderr) == {**counts(replaced=1, unchanged=2), "chunks": 1}
    sent = len(jobs(desk, corpus))
    third = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert summary(third.stderr) == {**counts(unchanged=3), "chunks": 0}
    assert len(jobs(desk, corpus)) == sent == 2


def test_what_was_deleted_or_changed_back_is_stored_again(
    desk: Suite, corpus: str, pages: Path
) -> None:
    arguments = ("ingest", str(pages / "tea.txt"), "--corpus", corpus)
    for text in ("One text.", "Another text.", "One text."):
        (pages / "tea.txt").write_text(text)
        assert refdesk(*arguments, env=desk.env).returncode == 0
        answer = httpx.get(f"{desk.url('retrieve')}/corpora/{corpus}/documents/tea.txt", timeout=30)
        assert answer.json()["text"].strip() == text
    httpx.delete(f"{desk.url('retrieve')}/corpora/{corpus}/documents/tea.txt", timeout=30)
    assert without_chunks(refdesk(*arguments, env=desk.env).stderr) == counts(created=1)


def test_rubbish_is_reported_with_reasons_and_the_rest_is_stored(
    desk: Suite, corpus: str, pages: Path
) -> None:
    (pages / "scan.pdf").write_bytes(b"%PDF-1.7\n%\xe2\xe3")
    (pages / "empty.md").write_text("")
    with (pages / "huge.txt").open("wb") as huge:
        huge.truncate(2_000_000_000)
    (pages / "photo.png").write_bytes(b"\x89PNG")
    (pages / "program.txt").write_bytes(b"\x7fELF\0\0")
    (pages / "line\nbreak.txt").write_text("This name holds a line break.")
    (pages / "\udcff.txt").write_text("This name is not UTF-8.")
    (pages / 'quo"te\\%22; filename=x.txt').write_text("This name is a strange one, but a name.")
    lines = ['{"id": "one", "text": "A first line."}', '{"id": "two"}', "{"]
    lines.append('{"id": "three", "text": "x", "year": 2020}')
    (pages / "lines.jsonl").write_text("\n".join(lines))
    result = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert result.returncode == 1
    assert set(documents(desk, corpus)) == {*PAGES, "one", 'quo"te\\%22; filename=x.txt'}
    assert without_chunks(result.stderr) == counts(created=5, failed=9)
    told = list(failures(result.stderr))
    assert len(told) == 9
    for name, reason in {
        "scan.pdf": "PDF",
        "empty.md": "empty",
        "huge.txt": "too large: 2,000 MB",
        "program.txt": "",
        "break.txt": "control character",
        "\\xff.txt": "not UTF-8",
        "lines.jsonl:2": "text: Field required",
        "lines.jsonl:3": "not JSON",
        "lines.jsonl:4": "year: Extra inputs",
    }.items():
        assert any(f"{name}: " in line and reason in line for line in told), (name, told)
    assert "left out (of a kind that is not read): 1, such as photo.png" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_documents_with_one_id_are_not_silently_one(
    desk: Suite, corpus: str, pages: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "tea.txt").write_text("Black tea wants boiling water.")
    result = refdesk("ingest", str(pages), str(other), "--corpus", corpus, env=desk.env)
    assert result.returncode == 1
    assert "its id 'tea.txt' is that of" in result.stderr
    assert without_chunks(result.stderr) == counts(created=3, failed=1)


def test_many_small_documents_go_in_several_jobs(
    desk: Suite, corpus: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery, "_JOB_DOCUMENTS", 50)
    lines = [json.dumps({"id": f"n{n}", "text": f"Number {n} is a number."}) for n in range(60)]
    (tmp_path / "many.jsonl").write_text("\n".join(lines))
    result = refdesk("ingest", str(tmp_path / "many.jsonl"), "--corpus", corpus, env=desk.env)
    assert result.returncode == 0, result.stderr
    assert summary(result.stderr) == {**counts(created=60), "chunks": 60}
    assert sorted(one["verdicts"]["created"] for one in jobs(desk, corpus)) == [10, 50]


def test_a_zip_is_stored_like_a_folder_and_nothing_of_it_twice(
    desk: Suite, corpus: str, pages: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(tmp_path / "pages.zip", "w") as archive:
        for name in PAGES:
            archive.write(pages / name, name)
    zipped = refdesk("ingest", str(tmp_path / "pages.zip"), "--corpus", corpus, env=desk.env)
    assert without_chunks(zipped.stderr) == counts(created=3)
    assert set(documents(desk, corpus)) == set(PAGES)
    folder = refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env)
    assert without_chunks(folder.stderr) == counts(unchanged=3)


def test_files_that_change_while_they_are_sent_cost_only_themselves(
    desk: Suite, corpus: str
) -> None:
    def changing(name: str, then: BinaryIO | OSError) -> Entry:
        """A file that is hashed as it is, and is something else when it is sent."""
        reads = iter([io.BytesIO(b"Words."), then])

        def opened() -> BinaryIO:
            read = next(reads)
            if isinstance(read, OSError):
                raise read
            return read

        return Entry(name, name, 6, 1 << 20, opened)

    vanished = FileNotFoundError(2, "No such file or directory")
    files = [
        changing("gone.txt", vanished),
        changing("grown.txt", io.BytesIO(bytes((1 << 20) + 1))),
        changing("same.txt", io.BytesIO(b"Words.")),
    ]
    with Api("retrieve", Settings(), desk.url("retrieve")) as api:
        ensure_corpus(api, corpus)
        tally = store(api, corpus, files, lambda _: None, say=pytest.fail)
        assert {one.source: one.reason for one in tally.failed} == {
            "gone.txt": "No such file or directory",
            "grown.txt": "too large: 1 MB; at most 1 MiB: split it",
        }
        assert set(documents(desk, corpus)) == {"same.txt"}
        assert (tally.documents, tally.bytes) == (3, 18)
        alone = [changing("gone.txt", vanished)]
        tally = store(api, corpus, alone, lambda _: None, say=pytest.fail)
        assert [one.source for one in tally.failed] == ["gone.txt"]


def test_nothing_to_ingest_is_an_error(desk: Suite, corpus: str, tmp_path: Path) -> None:
    told = one_error(refdesk("ingest", str(tmp_path), "--corpus", corpus, env=desk.env))
    assert "nothing to store" in told
    told = one_error(refdesk("ingest", str(tmp_path / "no"), "--corpus", corpus, env=desk.env))
    assert "no file or folder" in told
    both = refdesk("ingest", ".", "--corpus", corpus, "--dry-run", "--watch", env=desk.env)
    assert "don't go together" in one_error(both, code=2)


def test_a_corpus_name_that_can_not_be_is_refused(desk: Suite, pages: Path) -> None:
    assert one_error(refdesk("ingest", str(pages), "--corpus", "No Such/Name", env=desk.env))


# --- what is gone ----------------------------------------------------------------------------


def test_prune_deletes_what_is_gone_under_the_prefix_and_a_dry_run_only_says_so(
    desk: Suite, corpus: str, pages: Path
) -> None:
    here = ("ingest", str(pages), "--corpus", corpus, "--prefix", "a/")
    planned = refdesk(*here, "--prune", "--dry-run", env=desk.env)
    assert set(planned.stdout.splitlines()) == {f"create a/{one}" for one in PAGES}
    assert httpx.get(f"{desk.url('retrieve')}/corpora/{corpus}").status_code == 404
    assert refdesk(*here, env=desk.env).returncode == 0
    other = ("ingest", str(pages), "--corpus", corpus, "--prefix", "b/")
    assert refdesk(*other, env=desk.env).returncode == 0
    before = documents(desk, corpus)
    (pages / "moon.md").unlink()
    (pages / "tea.txt").write_text("Green tea is best brewed at seventy degrees.\n")
    (pages / "new.txt").write_text("This is new.")
    planned = refdesk(*here, "--prune", "--dry-run", env=desk.env)
    assert planned.returncode == 0, planned.stderr
    assert planned.stdout.splitlines() == [
        "create a/new.txt", "replace a/tea.txt", "delete a/moon.md",
    ]  # fmt: skip
    assert "delete a" not in refdesk(*here, "--dry-run", env=desk.env).stdout
    assert documents(desk, corpus) == before
    done = refdesk(*here, "--prune", env=desk.env)
    assert without_chunks(done.stderr) == counts(created=1, replaced=1, unchanged=1, deleted=1)
    assert set(documents(desk, corpus)) == {
        *(f"b/{one}" for one in PAGES), "a/new.txt", "a/tea.txt", "a/sub/rain.html",
    }  # fmt: skip


def test_what_can_not_be_read_is_not_gone(desk: Suite, corpus: str, pages: Path) -> None:
    lines = pages / "lines.jsonl"
    lines.write_text('{"id": "one", "text": "A line."}\n{"id": "two", "text": "A line, too."}\n')
    arguments = ("ingest", str(pages), "--corpus", corpus, "--prune")
    assert refdesk(*arguments, env=desk.env).returncode == 0
    (pages / "tea.txt").write_bytes(b"\x7fELF\0")
    (pages / "moon.md").unlink()
    result = refdesk(*arguments, env=desk.env)
    assert result.returncode == 1
    assert without_chunks(result.stderr) == counts(unchanged=3, deleted=1, failed=1)
    assert "tea.txt" in documents(desk, corpus)
    lines.write_text('{"id": "one", "text": "A line."}\n{"id": "tw')
    result = refdesk(*arguments, env=desk.env)
    assert result.returncode == 1
    assert "nothing was deleted, for it is not known what" in result.stderr
    assert "two" in documents(desk, corpus)


def test_an_empty_folder_deletes_nothing(
    desk: Suite, corpus: str, pages: Path, tmp_path: Path
) -> None:
    assert refdesk("ingest", str(pages), "--corpus", corpus, env=desk.env).returncode == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    told = one_error(refdesk("ingest", str(empty), "--corpus", corpus, "--prune", env=desk.env))
    assert told.endswith("nothing was deleted")
    (pages / "moon.md").unlink()
    both = refdesk("ingest", str(pages), str(empty), "--corpus", corpus, "--prune", env=desk.env)
    assert both.returncode == 1
    assert f"there is no document in {empty}" in both.stderr
    assert set(documents(desk, corpus)) == set(PAGES)
