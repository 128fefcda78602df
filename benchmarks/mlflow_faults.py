"""What a `run` does while its MLflow server is slow, down, broken, or away for a while.

    EMBED_ASSETS_MODEL=FOLDER python benchmarks/mlflow_faults.py --pdfs PDFS [--home HOME]

HOME is one whose documents were ingested (made anew without). Each fault works on a copy of it,
with a server of its own behind a proxy that makes the fault. Prints how each command ended, in what
time, what it said last, and how many training steps MLflow has the loss of. After a server that
stayed away it is well again, and the command is called once more: what was trained is not again.
"""

import argparse
import http.client
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "embed_assets.command.cli"]
CLIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
"""Less patience than MLflow's client has by itself, which is minutes."""
AWAY = 30.0
"""Seconds for which a server is away that comes back."""


@dataclass(frozen=True)
class Fault:
    """how: the server is. in_training: from the first losses on. seconds: for how long."""

    how: str
    in_training: bool = False
    seconds: float | None = None


FAULTS = {
    "well": Fault("well"),
    "slow": Fault("slow"),
    "down": Fault("down"),
    "hangs": Fault("hangs"),
    "broken": Fault("broken"),
    "down for a while in training": Fault("down", in_training=True, seconds=AWAY),
    "hangs for a while in training": Fault("hangs", in_training=True, seconds=AWAY),
    "down from training on": Fault("down", in_training=True),
}


class Proxy(ThreadingHTTPServer):
    """Stands before a server, and answers as `how` says."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = port
        self.how = "well"
        self.next: Fault | None = None
        self.asked = 0

    def begin(self, fault: Fault) -> None:
        """Be so from now on, or from the first losses on."""
        self.how = "well" if fault.in_training else fault.how
        self.next = fault if fault.in_training else None

    def see(self, body: bytes) -> None:
        """Look whether losses are sent."""
        if self.next and b"progress/loss" in body:
            self.how, seconds = self.next.how, self.next.seconds
            self.next = None
            if seconds:
                threading.Timer(seconds, setattr, (self, "how", "well")).start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that left is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing is said."""

    def pass_on(self) -> None:
        proxy = self.server
        proxy.asked += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy.see(body)
        while proxy.how == "hangs":
            time.sleep(0.1)
        if proxy.how == "down":
            self.close_connection = True
            return
        if proxy.how == "broken":
            self.send_error(500)
            return
        if proxy.how == "slow":
            time.sleep(1)
        behind = http.client.HTTPConnection("127.0.0.1", proxy.behind, timeout=60)
        behind.request(self.command, self.path, body, dict(self.headers))
        answer = behind.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "connection", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = pass_on


@contextmanager
def served(folder: Path) -> Iterator[Proxy]:
    """A proxy before an MLflow server of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
    where = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    stored = ["--artifacts-destination", str(folder / "artifacts"), "--port", str(port)]
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [*command, *where, *stored],
            env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    proxy = Proxy(port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        _await(port)
        yield proxy
    finally:
        proxy.how = "down"
        proxy.shutdown()
        os.killpg(server.pid, 15)
        server.wait()


def _await(port: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise SystemExit("The MLflow server doesn't start.")


def run(pdfs: Path, home: Path, proxy: Proxy, fault: Fault) -> str:
    """Run with this fault; how it ended."""
    proxy.begin(fault)
    start, asked = time.monotonic(), proxy.asked
    ended = subprocess.run(
        [*COMMAND, "run", "--pdfs", str(pdfs), "--home", str(home)],
        env={
            **CLIENT,
            **os.environ,
            "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.server_address[1]}",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    lines = ended.stdout.replace("\r", "\n").splitlines()
    words = "\n    ".join(line[:300] for line in lines[-6:])
    trained = any(line.startswith("Training:") for line in lines)
    return (
        f"exit {ended.returncode}, {time.monotonic() - start:.0f} s, "
        f"{proxy.asked - asked} requests, "
        f"{'trained' if trained else 'not trained'}, "
        f"{'A TRACEBACK' if 'Traceback' in ended.stdout else 'no traceback'}\n    {words}"
    )


def steps(proxy: Proxy) -> str:
    """Of the runs that have losses: how many MLflow has, of how many steps."""
    from mlflow import MlflowClient

    client = MlflowClient(f"http://127.0.0.1:{proxy.behind}")
    found = []
    for experiment in client.search_experiments():
        for one in client.search_runs([experiment.experiment_id]):
            if "progress/loss" in one.data.metrics:
                history = client.get_metric_history(one.info.run_id, "progress/loss")
                at = {row.step for row in history}
                found.append(f"{len(at)} of {max(at)}, {one.info.status}")
    return "; ".join(found) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="faults whose names begin so")
    given = parser.parse_args()
    pdfs = given.pdfs.absolute()
    with tempfile.TemporaryDirectory() as scratch:
        made = given.home or Path(scratch) / "made"
        ingest = [*COMMAND, "ingest", "--pdfs", str(pdfs), "--home", str(made)]
        if not given.home:
            subprocess.run(ingest, check=True, stdout=subprocess.DEVNULL)
        for name, fault in FAULTS.items():
            if given.only and not any(name.startswith(begin) for begin in given.only):
                continue
            folder = Path(scratch) / name.replace(" ", "-")
            home = Path(shutil.copytree(made, folder / "home"))
            with served(folder) as proxy:
                print(f"{name}: {run(pdfs, home, proxy, fault)}", flush=True)
                if fault.how != "well" and fault.how != "slow" and not fault.seconds:
                    print(f"{name}, then well: {run(pdfs, home, proxy, FAULTS['well'])}")
                print(f"{name}: losses in MLflow: {steps(proxy)}", flush=True)


if __name__ == "__main__":
    main()
