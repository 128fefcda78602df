"""A hub that takes what is published: as much of Hugging Face's protocol as that needs."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """What a hub holds. repositories: by kind and name, whether private. files: by repository."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.tokens: set[str | None] = set()
        self.refuses = False
        self.address = ""


@contextmanager
def hub() -> Iterator[Hub]:
    """A hub on loopback."""
    made = Hub()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self, status: int, said: Any = None, **headers: str) -> None:
            body = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            self.wfile.write(body)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))

        def do_GET(self) -> None:
            made.tokens.add(self.headers.get("Authorization"))
            _, _, kind, *name = self.path.partition("?")[0].split("/")
            known = made.repositories.get((kind, "/".join(name[:2])))
            if known is None:
                self.answer(404, {}, X_Error_Code="RepoNotFound")
                return
            self.answer(200, {"id": "/".join(name[:2]), "private": known, "sha": "0" * 40})

        def do_POST(self) -> None:
            said = self.body()
            if made.refuses:
                self.answer(403, {"error": "this token may not write"})
            elif self.path == "/api/repos/create":
                asked = json.loads(said)
                kind = f"{asked.get('type') or 'model'}s"
                name = f"{asked.get('organization')}/{asked['name']}"
                made.repositories.setdefault((kind, name), asked.get("visibility") == "private")
                self.answer(200, {"url": f"{made.address}/{name}"})
            elif "/preupload/" in self.path:
                files = json.loads(said)["files"]
                plain = [
                    {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for f in files
                ]
                self.answer(200, {"files": plain})
            elif "/commit/" in self.path:
                name = "/".join(self.path.split("/")[3:5])
                lines = [json.loads(line) for line in said.splitlines()]
                made.files[name] = {
                    line["value"]["path"]: base64.b64decode(line["value"]["content"])
                    for line in lines
                    if line["key"] == "file"
                }
                self.answer(200, {"commitUrl": f"{made.address}/{name}/commit/0", "commitOid": "0"})
            else:
                self.answer(200, {})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
