"""A model hub on loopback: it speaks the hub's HTTP for real, and misbehaves when told to."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

COMMIT = "5c1b" * 10
LARGE = (".safetensors", ".gguf", ".onnx", ".bin")  # what a hub keeps in LFS


@dataclass
class HubModel:
    """A repository with one commit, on the branch ``main``.

    served: content sent in place of the true one. sizes: sizes stated in place of the true ones.
    """

    files: dict[str, bytes]
    gated: bool = False
    token: str | None = None
    served: dict[str, bytes] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)

    def listing(self, model: str) -> dict[str, object]:
        """What ``GET /api/models/{model}/revision/{revision}?blobs=true`` answers."""
        siblings = []
        for path, content in self.files.items():
            git_id = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
            size = self.sizes.get(path, len(content))
            sibling: dict[str, object] = {"rfilename": path, "size": size, "blobId": git_id}
            if path.endswith(LARGE):
                sha256 = hashlib.sha256(content).hexdigest()
                sibling["lfs"] = {"sha256": sha256, "size": size, "pointerSize": 134}
            siblings.append(sibling)
        return {"id": model, "modelId": model, "sha": COMMIT, "siblings": siblings}


@dataclass
class Hub:
    """The running hub. hang_ups: how often the weights' transfer is still cut in the middle.

    lasting: whether it then answers 503 for good. resumed: ranges that were asked for after a cut.
    halfway is set when half of the weights are sent; the other half waits for `go_on`.
    """

    url: str = ""
    models: dict[str, HubModel] = field(default_factory=dict)
    hang_ups: int = 0
    lasting: bool = False
    resumed: list[str] = field(default_factory=list)
    halfway: Event = field(default_factory=Event)
    go_on: Event = field(default_factory=Event)
    downloads: list[str] = field(default_factory=list)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve a hub, without models as yet, until the body ends."""
    hub = Hub()
    hub.go_on.set()

    class Handler(_HubHandler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    looks = (0.01,)  # seconds between two; its end waits for one
    thread = Thread(target=server.serve_forever, args=looks)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        pass

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        parts = path.split("/")
        if parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
            self._listing("/".join(parts[2:4]), "/".join(parts[5:]))
        elif parts[2:3] == ["resolve"]:
            self._resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]), with_body)
        elif parts[0] == "storage":
            self._send_file("/".join(parts[1:3]), "/".join(parts[3:]), with_body)
        elif parts[0] == "website":  # no hub but a web page
            self._head(200, {"content-type": "text/html", "content-length": "13"})
            self.wfile.write(b"<html></html>")
        else:
            self._refuse(404, "EntryNotFound")

    def _permitted(self, name: str) -> HubModel | None:
        model = self.state.models.get(name)
        if model is None:
            self._refuse(401, "RepoNotFound")
            return None
        if model.token and self.headers.get("authorization") != f"Bearer {model.token}":
            self._refuse(401, "RepoNotFound")
            return None
        if model.gated:
            self._refuse(403, "GatedRepo")
            return None
        return model

    def _listing(self, name: str, revision: str) -> None:
        model = self._permitted(name)
        if model is None:
            return
        if revision not in ("main", COMMIT):
            self._refuse(404, "RevisionNotFound")
            return
        body = json.dumps(model.listing(name)).encode()
        self._head(200, {"content-type": "application/json", "content-length": str(len(body))})
        self.wfile.write(body)

    def _resolve(self, name: str, revision: str, path: str, with_body: bool) -> None:
        model = self._permitted(name)
        if model is None:
            return
        if revision != COMMIT or path not in model.files:
            self._refuse(404, "EntryNotFound")
            return
        if not path.endswith(LARGE):
            self._send_file(name, path, with_body)
            return
        content = model.files[path]
        headers = {
            "location": f"{self.state.url}/storage/{name}/{path}",
            "x-repo-commit": COMMIT,
            "x-linked-size": str(len(content)),
            "x-linked-etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "content-length": "0",
        }
        self._head(302, headers)

    def _send_file(self, name: str, path: str, with_body: bool) -> None:
        model = self.state.models[name]
        content = model.served.get(path, model.files[path])
        start = 0
        status = 200
        headers = {"x-repo-commit": COMMIT, "etag": f'"{hashlib.sha1(content).hexdigest()}"'}
        wanted = self.headers.get("range")
        if self.state.lasting and self.state.halfway.is_set():
            self._refuse(503, "Unavailable")
            return
        if wanted:
            self.state.resumed.append(wanted)
            start = int(wanted.removeprefix("bytes=").split("-")[0])
            status = 206
            headers["content-range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        headers["content-length"] = str(len(content) - start)
        self._head(status, headers)
        if not with_body:
            return
        self.state.downloads.append(path)
        if not path.endswith(LARGE):
            self.wfile.write(content)
            return
        middle = (start + len(content)) // 2
        self.wfile.write(content[start:middle])
        self.wfile.flush()
        self.state.halfway.set()
        if self.state.hang_ups:
            self.state.hang_ups -= 1
            self.close_connection = True
            return
        self.state.go_on.wait()
        try:
            self.wfile.write(content[middle:])
        except OSError:  # the client was killed
            self.close_connection = True

    def _refuse(self, status: int, code: str) -> None:
        self._head(status, {"x-error-code": code, "content-length": "0"})

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
