"""kill -9 of retrieve at random moments of ingest, jobs, deletes, backups and restores."""

import json
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.retrieve.corpus.opening import open_corpora
from shared.settings import Settings
from tests.faulty_embed import FaultyEmbed, faulty_embed
from tests.invariants import State, Wanted, require_sound
from tests.suite import ServiceProcess, prepare_suite
from tests.texts import Sent

SEED = 2026
NAMES = [f"d{number}" for number in range(16)]


Corpus = dict[str, Wanted]


class Client:
    """Does one thing after another until the service is gone, and keeps what was answered."""

    def __init__(self, url: str, seed: int) -> None:
        self.url = url
        self.chance = random.Random(seed)
        self.version = 0
        self.sound: dict[str, Corpus] = {"c": {}, "copy": {}}  # as acknowledged
        self.maybe: dict[str, list[State]] = {}  # of a request to "c" that was not answered
        self.restoring: Corpus | None = None  # into "copy", by a request that was not answered
        self.backup: tuple[bytes, Corpus] | None = None
        self.job: str | None = None
        self.loading: Corpus = {}  # by that job
        self.done: dict[str, int] = {}
        self.begun = threading.Event()

    def run(self) -> None:
        """Until the connection breaks."""
        self.begun.clear()
        with httpx.Client(base_url=self.url, timeout=60) as http:
            try:
                while True:
                    what = self.chance.choice(
                        [self.write, self.write, self.load, self.delete, self.back_up, self.restore]
                    )
                    what(http)
                    self.done[what.__name__] = self.done.get(what.__name__, 0) + 1
                    self.begun.set()
            except httpx.TransportError:
                return
            finally:
                self.begun.set()

    def settle(self) -> None:
        """Wait until the job of before the kill is over, which goes on by itself."""
        with httpx.Client(base_url=self.url, timeout=60) as http:
            self._finish(http)

    def _documents(self, most: int) -> Corpus:
        self.version += 1
        names = self.chance.sample(NAMES, self.chance.randint(1, most))
        return {name: Sent.of(name, self.version) for name in names}

    def _sent(self, documents: Corpus) -> list[dict[str, Any]]:
        return [one.body(name) for name, one in documents.items() if isinstance(one, Sent)]

    def write(self, http: httpx.Client) -> None:
        documents = self._documents(4)
        self.maybe = {name: [one] for name, one in documents.items()}
        answer = http.post("/corpora/c/documents", json={"documents": self._sent(documents)})
        assert answer.status_code == 200, answer.text
        assert all("error" not in one for one in answer.json()["results"]), answer.text
        self.sound["c"] |= documents
        self.maybe = {}

    def load(self, http: httpx.Client) -> None:
        documents = self._documents(len(NAMES))
        self.maybe = {name: [one] for name, one in documents.items()}
        lines = "\n".join(json.dumps(one) for one in self._sent(documents))
        # Sent again with this key after a kill it would be the same job.
        key = {"content-type": "application/x-ndjson", "idempotency-key": f"v{self.version}"}
        self.job, self.loading = f"v{self.version}", documents
        self._body = (lines, key)
        self._finish(http)

    def _finish(self, http: httpx.Client) -> None:
        if self.job is None:
            return
        lines, headers = self._body
        answer = http.post("/corpora/c/ingest", content=lines, headers=headers)
        assert answer.status_code == 202, answer.text
        give_up = time.monotonic() + 60
        while (job := http.get(f"/jobs/{answer.json()['id']}").json())["state"] != "succeeded":
            assert job["state"] in ("queued", "running"), job
            assert time.monotonic() < give_up, job
            time.sleep(0.01)
        assert job["verdicts"]["failed"] == 0
        self.sound["c"] |= self.loading
        self.job, self.maybe = None, {}

    def delete(self, http: httpx.Client) -> None:
        names = self.chance.sample(NAMES, self.chance.randint(1, 5))
        self.maybe = {name: [None] for name in names}
        if len(names) == 1:
            answer = http.delete(f"/corpora/c/documents/{names[0]}")
            assert answer.status_code == (204 if names[0] in self.sound["c"] else 404)
        else:
            answer = http.post("/corpora/c/documents/delete", json={"ids": names})
            assert set(answer.json()["deleted"]) == set(names) & set(self.sound["c"])
        for name in names:
            self.sound["c"].pop(name, None)
        self.maybe = {}

    def back_up(self, http: httpx.Client) -> None:
        answer = http.get("/corpora/c/backup")
        assert answer.status_code == 200
        self.backup = answer.content, dict(self.sound["c"])

    def restore(self, http: httpx.Client) -> None:
        if self.backup is None:
            return
        content, self.restoring = self.backup
        answer = http.post("/corpora/copy/restore?replace=true&keep_days=0", content=content)
        assert answer.status_code in (200, 201), answer.text
        self.sound["copy"], self.restoring = self.restoring, None


def check(client: Client, settings: Settings) -> None:
    """What the process left behind; what was not answered is known afterwards."""
    catalog, database = open_corpora(settings)
    try:
        client.sound["c"] = require_sound(catalog.get("c"), client.sound["c"], maybe=client.maybe)
        if client.job is None:
            client.maybe = {}
        there = {info.name for info in catalog.list()}
        assert catalog.damaged == {}
        if client.restoring is None and not client.sound["copy"]:
            return
        if "copy" not in there:  # it was on its way for the first time
            assert not client.sound["copy"]
        else:
            copy = catalog.get("copy")
            if (
                client.restoring is not None
                and len(copy.documents(1000, None))
                and (_same(copy.document, client.restoring))
            ):
                client.sound["copy"] = client.restoring
            require_sound(copy, client.sound["copy"])
        client.restoring = None
    finally:
        catalog.close()
        database.close()


def _same(document: Any, wanted: Corpus) -> bool:
    found = {name: document(name) for name in NAMES}
    return {name: one.text for name, one in found.items() if one is not None} == {
        name: one.text for name, one in wanted.items()
    }


@pytest.fixture
def embed(minilm_dir: Path) -> Iterator[FaultyEmbed]:
    """A sound one."""
    with faulty_embed(minilm_dir / "tokenizer.json") as one:
        yield one


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.long)])
def test_whatever_was_under_way_nothing_acknowledged_is_lost(
    embed: FaultyEmbed, tmp_path: Path, kills: int
) -> None:
    suite = prepare_suite(tmp_path, REFDESK_EMBED_URL=embed.url)
    retrieve: ServiceProcess = suite.services["retrieve"]
    settings = Settings(data_dir=suite.data_dir)
    client, chance = Client(retrieve.url, SEED), random.Random(SEED)
    retrieve.start()
    httpx.put(f"{retrieve.url}/corpora/c", json={}, timeout=60).raise_for_status()
    try:
        for _ in range(kills):
            failures: list[BaseException] = []

            def work(failures: list[BaseException] = failures) -> None:
                try:
                    client.run()
                except BaseException as error:
                    failures.append(error)

            worker = threading.Thread(target=work)
            worker.start()
            client.begun.wait(60)
            time.sleep(chance.uniform(0, 1.2))
            retrieve.kill()
            worker.join()
            if failures:
                raise failures[0]
            check(client, settings)
            retrieve.start()
            client.settle()
    finally:
        retrieve.stop()
    check(client, settings)
    assert sum(client.done.values()) > kills
