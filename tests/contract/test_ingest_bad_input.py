"""Hostile and broken uploads over real HTTP: each a clear answer, and what is sound goes in."""

import io
import json
import stat
import zipfile
from collections.abc import Iterator

import httpx
import pytest

from tests.files import a_docx, a_pdf, a_pptx, an_eml, an_xlsx
from tests.loading import CREATED, NDJSON, ZIP, code, finished, ids, load, new_corpus
from tests.suite import Suite

FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def http(suite: Suite) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=suite.url("retrieve"), timeout=120) as client:
        yield client


@pytest.fixture
def corpus(http: httpx.Client) -> str:
    """The path of an empty corpus."""
    return new_corpus(http)


# --- archives ------------------------------------------------------------------------------------


def hostile_zip() -> bytes:
    """Bombs, names that lead elsewhere, a link, a member under a password, archives within."""
    link = zipfile.ZipInfo("link.md")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good.md", "# Moss\n\nGrows slowly.")
        archive.writestr("bomb.txt", bytes(40_000_000))
        archive.writestr("../up.md", "x")
        archive.writestr("a/../../../etc/cron.d/x.txt", "x")
        archive.writestr("/etc/passwd.txt", "x")
        archive.writestr("C:\\windows\\x.txt", "x")
        archive.writestr("..\\up2.txt", "x")
        archive.writestr(link, "/etc/passwd")
        archive.writestr("inner.zip", b"PK\x03\x04")
        archive.writestr("secret.txt", "under a password")
        archive.writestr("lies.txt", "much longer than the archive says")
        archive.writestr("a.docx", a_docx())
        archive.writestr("last.md", "The last one is read, too.")
    data = bytearray(made.getvalue())
    for sign, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[place_of(data, sign, b"secret.txt") + flags] |= 1
    entry = place_of(data, b"PK\x01\x02", b"lies.txt")
    data[entry + 24 : entry + 28] = (4).to_bytes(4, "little")
    return bytes(data)


def place_of(data: bytearray, sign: bytes, name: bytes) -> int:
    """Where the header of that kind begins that is before this name."""
    at = data.find(sign)
    while at >= 0:
        name_at = at + (30 if sign == b"PK\x03\x04" else 46)
        if data[name_at : name_at + len(name)] == name:
            return at
        at = data.find(sign, at + 1)
    raise AssertionError(f"no {name!r}")


def test_of_a_hostile_archive_the_honest_members_go_in(http: httpx.Client, corpus: str) -> None:
    found = load(http, corpus, content=hostile_zip(), headers=ZIP)
    assert {(id_, code) for id_, status, code in found if status == "failed"} == {
        ("bomb.txt", "file_too_large"),
        ("../up.md", "bad_name"),
        ("a/../../../etc/cron.d/x.txt", "bad_name"),
        ("/etc/passwd.txt", "bad_name"),
        ("C:/windows/x.txt", "bad_name"),
        ("../up2.txt", "bad_name"),
        ("link.md", "not_a_file"),
        ("inner.zip", "nested_archive"),
        ("secret.txt", "encrypted_file"),
        ("lies.txt", "broken_file"),
    }
    assert ids(http, corpus) == ["a.docx", "good.md", "last.md"]


@pytest.mark.parametrize("cut", [1, 60, 400])
def test_an_archive_that_breaks_off_is_refused_whole(
    http: httpx.Client, corpus: str, cut: int
) -> None:
    answer = http.post(f"{corpus}/ingest", content=hostile_zip()[:-cut], headers=ZIP)
    assert code(answer, 422) == "broken_file"
    assert ids(http, corpus) == []


def test_an_empty_archive_and_one_of_folders_alone_hold_no_document(
    http: httpx.Client, corpus: str
) -> None:
    for names in ((), ("folder/",)):
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w") as archive:
            for name in names:
                archive.writestr(name, b"")
        answer = http.post(f"{corpus}/ingest", content=made.getvalue(), headers=ZIP)
        assert code(answer, 422) == "no_documents"


# --- files ---------------------------------------------------------------------------------------


def test_each_broken_file_has_its_reason_and_the_others_go_in(
    http: httpx.Client, corpus: str
) -> None:
    pdf, office = a_pdf(), a_docx()
    files: dict[str, tuple[bytes, str | None]] = {
        "good.pdf": (pdf, None),
        "locked.pdf": (a_pdf(password="secret"), "encrypted_file"),
        "cut.pdf": (pdf[: len(pdf) // 3], "broken_file"),
        "program.pdf": (b"MZ" + bytes(500), "unsupported_format"),
        "text.pdf": (b"just words", "unsupported_format"),
        "empty.pdf": (b"", "no_text"),
        "empty.txt": (b"", "no_text"),
        "blank.md": (b" \n\t\n", "no_text"),
        "good.docx": (office, None),
        "cut.docx": (office[: len(office) // 2], "broken_file"),
        "good.pptx": (a_pptx(), None),
        "good.xlsx": (an_xlsx(), None),
        "good.eml": (an_eml(), None),
        "noise.bin": (bytes(range(256)) * 8, "unsupported_format"),
        "noise.txt": (b"\x00\x01\x02\x03" * 100, "unsupported_format"),
        "latin.txt": ("Käse, Straße und Brötchen aus Köln".encode("latin-1"), None),
        "utf16.txt": ("Käse".encode("utf-16"), None),
        "half.txt": (b"\xff\xfea", "broken_text"),
    }
    sent = [("files", (name, data)) for name, (data, _) in files.items()]
    found = load(http, corpus, files=sent)
    assert {id_: code for id_, _, code in found} == {
        name: code for name, (_, code) in files.items()
    }
    assert ids(http, corpus) == sorted(name for name, (_, code) in files.items() if code is None)
    text = http.get(f"{corpus}/documents/latin.txt").json()["text"]
    assert text == "Käse, Straße und Brötchen aus Köln"


def part(head: bytes, content: bytes) -> bytes:
    return b"--b\r\nContent-Disposition: form-data; " + head + b"\r\n\r\n" + content + b"\r\n"


def test_names_in_odd_encodings_are_read_or_refused_by_name(
    http: httpx.Client, corpus: str
) -> None:
    body = (
        part('name="files"; filename="größe/日本.txt"'.encode(), b"one")
        + part('name="files"; filename="käse.txt"'.encode("latin-1"), b"two")
        + part(b'name="files"; filename="line\tbreak.txt"', b"three")
        + part(b'name="files"', b"no name")
        + part(b'name="files"; filename="' + b"n" * 600 + b'.txt"', b"four")
        + part(b'name="files"; filename="  "', b"five")
        + b"--b--\r\n"
    )
    found = load(http, corpus, content=body, headers=FORM)
    assert found[0] == ("größe/日本.txt", *CREATED)
    assert [code for _, _, code in found[1:]] == ["bad_name"] * 5
    assert ids(http, corpus) == ["größe/日本.txt"]

    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("caf\u00e9-utf8.txt", "one")
        archive.writestr("xxxx-dos.txt", "two")
    plain = made.getvalue().replace(b"xxxx", "dä".encode("cp437") + b"\x82\x8a")
    found = load(http, corpus, content=plain, headers=ZIP)
    assert found == [("café-utf8.txt", *CREATED), ("däéè-dos.txt", *CREATED)]


def test_the_same_id_twice_is_taken_once_whatever_the_body(http: httpx.Client, corpus: str) -> None:
    twice = [{"id": "a", "text": "first"}, {"id": "a", "text": "second"}]
    lines = "\n".join(map(json.dumps, twice))
    files = [("files", ("a", b"first")), ("files", ("b.txt", b"second"))]
    labels = json.dumps([{"file": "b.txt", "id": "a", "format": "text"}])
    answer = http.post(f"{corpus}/documents", json={"documents": twice})
    assert [one["status"] for one in answer.json()["results"]] == ["created", "failed"]
    assert answer.json()["results"][1]["error"]["code"] == "duplicate_id"
    for body in ({"json": {"documents": twice}}, {"content": lines, "headers": NDJSON}):
        found = load(http, corpus, **body)
        assert found == [("a", "unchanged", None), ("a", "failed", "duplicate_id")]
    found = load(http, corpus, files=files, data={"documents": labels})
    assert found[1] == ("a", "failed", "duplicate_id")
    assert http.get(f"{corpus}/documents/a").json()["text"] == "first"
    pages = [("files", ("p", b"<html><p>one")), ("files", ("p", b"<html><p>two"))]
    assert load(http, corpus, files=pages) == [("p", *CREATED), ("p", "failed", "duplicate_id")]
    assert http.get(f"{corpus}/documents/p").json()["text"] == "one"


def test_a_document_that_is_nested_too_deep_costs_itself_alone(
    http: httpx.Client, corpus: str
) -> None:
    deep = b'{"id": "deep", "text": "x", "metadata": {"m": ' + b"[" * 300 + b"]" * 300 + b"}}"
    good = b'{"id": "good", "text": "words"}'
    json_type = {"content-type": "application/json"}
    body = b'{"documents": [' + deep + b", " + good + b"]}"
    found = load(http, corpus, content=body, headers=json_type)
    assert [code for _, _, code in found] == ["invalid_json", None]
    found = load(http, corpus, content=deep + b"\n" + good, headers=NDJSON)
    assert [code for _, _, code in found] == ["invalid_request", None]
    answer = http.post(f"{corpus}/documents", content=body, headers=json_type)
    assert [one["status"] for one in answer.json()["results"]] == ["failed", "unchanged"]


BAD_LABELS: dict[str, tuple[str, int]] = {
    "NaN": ('[{"file": "a.md", "metadata": {"n": NaN}}]', 400),
    "10,000 keys": (
        json.dumps([{"file": "a.md", "metadata": {f"k{n}": n for n in range(10_000)}}]),
        422,
    ),
    "nested": ('[{"file": "a.md", "metadata": {"a": {"b": 1}}}]', 422),
    "told twice": ('[{"file": "a.md"}, {"file": "a.md"}]', 422),
    "a script": ('[{"file": "a.md", "url": "javascript:alert(1)"}]', 422),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_what_is_told_wrong_about_files_is_refused_before_anything_is_kept(
    http: httpx.Client, corpus: str, kind: str
) -> None:
    labels, status = BAD_LABELS[kind]
    files = [("files", ("a.md", b"# Moss"))]
    answer = http.post(f"{corpus}/ingest", files=files, data={"documents": labels})
    assert code(answer, status) in ("invalid_json", "invalid_request")
    assert answer.json()["error"]["param"].startswith("documents")
    assert ids(http, corpus) == []


# --- what is not there ---------------------------------------------------------------------------


def test_what_is_not_there_can_not_be_deleted_and_is_told(http: httpx.Client, corpus: str) -> None:
    assert code(http.delete(f"{corpus}/documents/ghost"), 404) == "document_not_found"
    answer = http.post(f"{corpus}/documents/delete", json={"ids": ["ghost", "../up", "a\nb"]})
    assert answer.json() == {"deleted": [], "missing": ["ghost", "../up", "a\nb"]}
    assert code(http.delete("/corpora/nowhere/documents/a"), 404) == "corpus_not_found"
    assert code(http.delete("/corpora/nowhere"), 404) == "corpus_not_found"


def test_a_job_that_is_over_can_not_be_cancelled(http: httpx.Client, corpus: str) -> None:
    line = b'{"id": "a", "text": "one"}'
    job = http.post(f"{corpus}/ingest", content=line, headers=NDJSON).json()
    before = finished(http, job["id"])
    for _ in range(2):
        assert code(http.post(f"/jobs/{job['id']}/cancel"), 409) == "job_finished"
    assert http.get(f"/jobs/{job['id']}").json() == before
    assert code(http.post("/jobs/nothing/cancel"), 404) == "job_not_found"
    assert ids(http, corpus) == ["a"]
