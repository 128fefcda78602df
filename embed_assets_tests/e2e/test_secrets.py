"""Marked secrets in every variable, servers that quote them, and no file or word that has one."""

import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from embed_assets.secrets import HIDDEN
from embed_assets_tests.e2e.conftest import DOCUMENTS, write_pdf
from embed_assets_tests.e2e.project import Project

MARK = "marked-s3cret"
NAMES = ("OPENAI_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENLINEAGE_API_KEY")
FORMS = (MARK.encode(), b64encode(f"me:{MARK}".encode()).rstrip(b"="))


@pytest.fixture
def refusing() -> Iterator[str]:
    """A server that refuses all it is asked, quoting what was to let the client in."""

    class Refusing(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            said = f'{{"error": {{"message": "no: {self.headers.get("Authorization")}"}}}}'
            self.send_response(401)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said.encode())

        do_GET = do_POST = answer

    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:{MARK}@127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def project(tmp_path: Path, command: str, environment: dict[str, str]) -> Project:
    name = "canal-lock-manual.pdf"
    pdfs = tmp_path / "pdfs"
    pdfs.mkdir()
    write_pdf(pdfs / name, DOCUMENTS[name])
    secrets = dict.fromkeys(NAMES, MARK)
    return Project(command, {**environment, **secrets}, pdfs, tmp_path / "home")


def test_no_secret_is_in_a_file_of_the_home_or_in_what_a_person_sees(
    project: Project, refusing: str
) -> None:
    asked = project.call(
        "ingest", EMBED_ASSETS_QUESTIONS="openai:m", OPENAI_BASE_URL=f"{refusing}/v1"
    )
    tracked = project.call("run", "--json", MLFLOW_TRACKING_URI=refusing)
    assert asked.status == tracked.status == 1
    for call in (asked, tracked):
        assert HIDDEN in call.err + call.out
        assert not any(form.decode() in call.err + call.out for form in FORMS)
    files = [file for file in project.home.rglob("*") if file.is_file()]
    assert any(file.suffix == ".db" for file in files)
    assert [file for file in files if any(form in file.read_bytes() for form in FORMS)] == []
