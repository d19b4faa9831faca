"""Who may see, search and change what on the desk."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import httpx

from shared.auth import hash_key
from tests.shelf import QUERY, desk, fixed, peer, with_peer
from tests.suite import Suite


def test_a_key_opens_its_own_corpora_and_a_reader_changes_nothing(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    entries = [
        {"name": "all", "sha256": hash_key("k-admin"), "role": "admin"},
        {"name": "one", "sha256": hash_key("k-one"), "role": "reader", "corpora": ["shelf"]},
    ]
    keys.write_text(json.dumps({"keys": entries}))

    async def main() -> None:
        async with desk(shelf, embed=suite.url("embed"), keys_file=keys) as client:

            async def call(key: str, method: str, path: str, body: Any = None) -> httpx.Response:
                headers = {"authorization": f"Bearer {key}"}
                return await client.request(method, path, json=body, headers=headers)

            question = {"query": QUERY, "corpora": ["shelf"], "curate": False}
            assert (await call("wrong", "POST", "/retrieve", question)).status_code == 401
            assert (await call("k-one", "POST", "/retrieve", question)).status_code == 200
            for corpora in (["secret"], ["shelf", "secret"], ["not-there"]):
                body = {**question, "corpora": corpora}
                refused = await call("k-one", "POST", "/retrieve", body)
                # As if they were not there: nobody learns the names of others' corpora.
                assert refused.status_code == 404
                error = refused.json()["error"]
                assert error["param"] == f"corpora.{len(corpora) - 1}"
                assert error["message"].partition("; ")[2].startswith("there is: shelf;")
            unknown = await call("k-admin", "POST", "/retrieve", {**question, "corpora": ["x"]})
            assert unknown.status_code == 404
            assert "secret" in unknown.json()["error"]["message"]

            listed = (await call("k-one", "GET", "/corpora")).json()["corpora"]
            assert [corpus["name"] for corpus in listed] == ["shelf"]
            for path in ("", "/documents", "/documents/moon"):
                assert (await call("k-one", "GET", f"/corpora/secret{path}")).status_code == 404
                assert (await call("k-one", "GET", f"/corpora/shelf{path}")).status_code == 200
            document = {"documents": [{"id": "new", "text": "new"}]}
            changes: list[tuple[str, str, Any]] = [
                ("PUT", "/corpora/shelf", {}),
                ("DELETE", "/corpora/shelf", None),
                ("POST", "/corpora/shelf/documents", document),
                ("DELETE", "/corpora/shelf/documents/moon", None),
            ]
            for method, path, change in changes:
                refused = await call("k-one", method, path, change)
                assert refused.status_code == 403
                assert refused.json()["error"]["type"] == "permission_error"

    asyncio.run(main())


def test_only_those_who_may_read_a_corpus_are_told_what_is_wrong_with_it(
    shelf: Path, suite: Suite, tmp_path: Path
) -> None:
    """/ready needs no key: with keys it counts, and names neither a corpus nor a file."""
    folder = tmp_path / "data"
    shutil.copytree(shelf, folder)
    file = folder / "corpora" / "secret" / "g1" / "corpus.db"
    file.write_bytes(b"rubbish" * 1000)
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "all", "sha256": hash_key("k")}]}))
    info = {**httpx.get(f"{suite.url('embed')}/info").json(), "revision": "another"}

    async def ready(embed: str, **more: Any) -> dict[str, Any]:
        async with desk(folder, embed=embed, **more) as client:
            answer = await client.get("/ready")
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

    app = peer(info, fixed(b"{}"))
    told = with_peer(app, lambda embed: ready(embed))
    assert set(told["faults"]) == {"secret", "shelf"}
    assert str(file) in told["faults"]["secret"]
    locked = with_peer(app, lambda embed: ready(embed, keys_file=keys))
    assert (locked["corpora"], locked["damaged"], locked["of_another_model"]) == (1, 1, 1)
    assert locked["faults"] == {}
    assert locked["dependencies"]["rerank"] == "does not answer: see the log"
    for word in ("secret", "shelf", str(folder), "127.0.0.1"):
        assert word not in json.dumps(locked)
    assert "127.0.0.1" in told["dependencies"]["rerank"]


def test_why_a_service_is_not_ready_is_told_to_all_only_where_there_are_no_keys(
    shelf: Path, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    keys.write_text(json.dumps({"keys": [{"name": "all", "sha256": hash_key("k")}]}))

    async def ready(**more: Any) -> str:
        async with desk(shelf, **more) as client:
            answer = await client.get("/ready")
            assert answer.status_code == 503
            return str(answer.json()["error"]["message"])

    assert "127.0.0.1" in asyncio.run(ready())
    assert asyncio.run(ready(keys_file=keys)) == "retrieve can't do its work just now: see its log"
