"""A web page of another site, open in the same browser, and what it does to Dagster."""

import json
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import dagster as dg
import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.support.wait import WebDriverWait

from embed_assets.command import guarded

PLAIN, GUARDED = ["dagster_webserver"], [guarded.MODULE, guarded.WEBSERVER]
MUTATION = 'mutation { setConcurrencyLimit(concurrencyKey: "%s", limit: 1) }'
ATTACK = """
<script>
const server = "{server}", mutation = key => server + "/graphql?query=" + encodeURIComponent(
  `{mutation}`.replace("%s", key));
const post = fetch(mutation("by-post"), {{method: "POST", mode: "no-cors", body: "x"}});
const image = new Promise(end => {{
  const image = new Image(); image.onload = image.onerror = end; image.src = mutation("by-get");
}});
const socket = new Promise(end => {{
  const socket = new WebSocket(server.replace("http", "ws") + "/graphql", "graphql-ws");
  socket.onopen = () => end("heard"); socket.onerror = () => end("refused");
}});
Promise.allSettled([post, image, socket]).then(
  done => document.title = "done: " + done[2].value);
</script>
"""


@pytest.fixture(params=[PLAIN, GUARDED], ids=["plain", "guarded"])
def served(
    request: pytest.FixtureRequest, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[tuple[bool, str, dg.DagsterInstance]]:
    """Dagster's webserver: whether it is guarded, its address and its instance."""
    home, port = tmp_path / "dagster", free_port()
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        call = [sys.executable, "-m", *request.param, "--empty-workspace", "--port", str(port)]
        address = f"http://127.0.0.1:{port}"
        with subprocess.Popen(call, env={"DAGSTER_HOME": str(home)}) as server:
            try:
                wait_for(address, server)
                yield request.param == GUARDED, address, instance
            finally:
                server.terminate()


def wait_for(address: str, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"{address}/server_info", timeout=60):
                return
        except urllib.error.URLError:
            continue
    raise AssertionError("the server ended")


@contextmanager
def another_site(page: str) -> Iterator[str]:
    """Address of a server of this page alone."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_page_of_another_site_changes_dagster_unless_the_guard_is_in_front(
    browser: WebDriver, served: tuple[bool, str, dg.DagsterInstance]
) -> None:
    is_guarded, address, instance = served
    with another_site(ATTACK.format(server=address, mutation=MUTATION)) as site:
        browser.get(site)
        WebDriverWait(browser, 60).until(lambda driver: driver.title.startswith("done"))
    changed = instance.event_log_storage.get_concurrency_keys()
    assert browser.title == ("done: refused" if is_guarded else "done: heard")
    assert changed == (set() if is_guarded else {"by-post", "by-get"})

    browser.get(f"{address}/graphql")  # its own page may
    own = {"query": MUTATION % "own"}
    browser.execute_async_script(
        "const end = arguments[1]; fetch('/graphql', {method: 'POST', body: arguments[0], "
        "headers: {'Content-Type': 'application/json'}}).then(end)",
        json.dumps(own),
    )
    assert instance.event_log_storage.get_concurrency_keys() == changed | {"own"}
