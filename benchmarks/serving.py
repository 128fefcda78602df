"""The server under load: texts a second, p50 and p99, errors, memory at start and end.

    python benchmarks/serving.py --home HOME [--seconds 120] [--clients 64] [--texts 1]

Texts are the home's chunks and questions, each client with others, one after the other without a
pause. Ways, one after another, each on the machine alone: `serve` (`embed-assets serve` with all
clients at once), `one at a time` (the same server with one client), `mlflow` (`mlflow models serve`
of the same model, logged as the project logs it, with all clients at once). `--task query` takes
questions, `document` chunks. Memory is the resident set of the server's process after the
warm-up and at the end, and by how much it grew in the second half.

What came out (a version of all-MiniLM-L6-v2, 64 clients, questions of 8 words on average, two cores
that nothing else used; 100 seconds): serve 177 texts/s, p50 .34 s, p99 .82 s, no error of 17,824;
mlflow 39, 1.6 s, 2.3 s; one at a time 37. serve is 4.6 times mlflow (2.7 where other programs kept
the cores busy). In 190 seconds, 31,079 requests, its memory went from 836 to 892 MB within 15
seconds, and to 920 at the end, 12 of them in the second half.
"""

import argparse
import asyncio
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil

from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.encoder import load_model
from embed_assets.models.registry import champion
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings

WARM_UP = 3.0
START_TIMEOUT = 180.0


@dataclass(frozen=True)
class Server:
    """A server at work: where texts are sent, and what its answers' vectors are under."""

    process: psutil.Process
    url: str
    model: str | None

    def body(self, texts: Sequence[str]) -> bytes:
        named = {"model": self.model} if self.model else {}
        return json.dumps({"input": texts, **named}).encode()

    def resident(self) -> float:
        """MB of the server and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(process.memory_info().rss for process in family) / 2**20


@dataclass
class Load:
    """What came of it. seconds: of each request that was answered."""

    lasted: float = 0.0
    texts: int = 0
    seconds: list[float] = field(default_factory=list)
    errors: dict[str, int] = field(default_factory=dict)
    memory: list[float] = field(default_factory=list)

    def row(self, name: str) -> str:
        p50, p99 = np.percentile(self.seconds, [50, 99]) if self.seconds else (np.nan, np.nan)
        second_half = self.memory[len(self.memory) // 2 :]
        grown = second_half[-1] - second_half[0]
        return (
            f"{name:<14} {self.texts / self.lasted:8.1f} {len(self.seconds):9} "
            f"{p50 * 1e3:8.0f} {p99 * 1e3:8.0f} {sum(self.errors.values()):7} "
            f"{self.memory[0]:9.0f} {self.memory[-1]:7.0f} {grown:+9.1f}"
        )


HEADER = (
    f"{'way':<14} {'texts/s':>8} {'requests':>9} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7} "
    f"{'MB start':>9} {'MB end':>7} {'2nd half':>9}"
)


class Client:
    """Asks a server over one connection. A library's client costs more than the server's work."""

    def __init__(self, url: str) -> None:
        self._url = urlsplit(url)
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, body: bytes) -> int:
        """The status of the answer, which is read in whole."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._url.hostname, self._url.port)
        reader, writer = self._streams
        head = (
            f"POST {self._url.path} HTTP/1.1\r\nHost: {self._url.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        try:
            writer.write(head.encode() + body)
            answered = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            await reader.readexactly(int(answered.partition("content-length:")[2].split()[0]))
        except (OSError, EOFError, IndexError):
            self.close()
            raise
        return int(answered.split()[1])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
        self._streams = None


async def load(
    server: Server, texts: Sequence[str], clients: int, a_request: int, seconds: float
) -> Load:
    """Have clients send requests without a pause."""
    done = Load()
    connections = [Client(server.url) for _ in range(clients)]

    async def ask(number: int, until: float, counted: bool) -> None:
        start = number * len(texts) // clients
        mine = itertools.cycle([*texts[start:], *texts[:start]])
        while (began := time.perf_counter()) < until:
            body = server.body([next(mine) for _ in range(a_request)])
            try:
                status = await connections[number].post(body)
                said = "" if status == 200 else f"{status}"
            except (OSError, EOFError, IndexError) as error:
                said = type(error).__name__
            if said:
                done.errors[said] = done.errors.get(said, 0) + 1
            elif counted:
                done.seconds.append(time.perf_counter() - began)
                done.texts += a_request

    async def watch(until: float) -> None:
        while time.perf_counter() < until:
            done.memory.append(server.resident())
            await asyncio.sleep(min(1.0, seconds / 20))

    until = time.perf_counter() + min(WARM_UP, seconds)
    await asyncio.gather(*(ask(number, until, False) for number in range(clients)))
    began = time.perf_counter()
    until = began + seconds
    asked = [ask(number, until, True) for number in range(clients)]
    await asyncio.gather(watch(until), *asked)
    done.lasted = time.perf_counter() - began
    done.memory.append(server.resident())
    for connection in connections:
        connection.close()
    return done


@contextmanager
def ours(home: Path, task: str) -> Iterator[Server]:
    """`embed-assets serve`."""
    command = [sys.executable, "-m", "embed_assets.command.cli", "serve", "--json"]
    with started([*command, "--port", "0", "--home", str(home)], subprocess.PIPE) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline() or b"{}")
        url = f"{said['url']}/v1/embeddings"
        yield Server(psutil.Process(process.pid), url, f"champion-{task}")


@contextmanager
def mlflows(card: ModelCard) -> Iterator[Server]:
    """`mlflow models serve`."""
    from mlflow.sentence_transformers import save_model

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(card.source, card.token_limit)
        save_model(model, f"{folder}/model", task="llm/v1/embeddings", pip_requirements=["mlflow"])
        del model
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"{folder}/model"]
        options = ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
        with started([*command, *options], subprocess.DEVNULL) as process:
            until = time.monotonic() + START_TIMEOUT
            while True:
                try:
                    httpx.get(f"http://127.0.0.1:{port}/ping", trust_env=False).raise_for_status()
                    break
                except httpx.HTTPError:
                    if time.monotonic() > until or process.poll() is not None:
                        raise
                    time.sleep(0.5)
            url = f"http://127.0.0.1:{port}/invocations"
            yield Server(psutil.Process(process.pid), url, None)


@contextmanager
def started(command: Sequence[str], stdout: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process, ended with the block, and all that it started."""
    process = subprocess.Popen(
        command, stdout=stdout, stderr=subprocess.DEVNULL, env={**os.environ, "TQDM_DISABLE": "1"}
    )
    try:
        yield process
    finally:
        family = [*psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        process.wait(60)
        for child in family:
            if child.is_running():
                child.kill()


def texts_of(warehouse: Warehouse, task: str) -> list[str]:
    """What is embedded, in an order that mixes lengths."""
    sources = {"query": ("synthetic_questions", "question"), "document": ("chunks", "chunk_text")}
    table, column = sources[task]
    rows = warehouse.read(f"SELECT DISTINCT {column} AS text FROM {table} ORDER BY md5({column})")
    return rows["text"].to_list()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--texts", type=int, default=1, help="of each request")
    parser.add_argument("--task", choices=["query", "document"], default="query")
    given = parser.parse_args()

    settings = Settings(home=given.home)
    warehouse = Warehouse.of(settings)
    version = champion(warehouse, settings)
    card = version.card if version else model_card(settings)
    texts = texts_of(warehouse, given.task)
    words = np.mean([len(text.split()) for text in texts])
    print(f"{card.name}: {len(texts)} {given.task} texts of {words:.0f} words on average")
    print(HEADER, flush=True)

    with ours(given.home, given.task) as server:
        one = asyncio.run(load(server, texts, 1, given.texts, given.seconds / 4))
        print(one.row("one at a time"), flush=True)
        many = asyncio.run(load(server, texts, given.clients, given.texts, given.seconds))
        print(many.row("serve"), flush=True)
    with mlflows(card) as server:
        theirs = asyncio.run(load(server, texts, given.clients, given.texts, given.seconds))
        print(theirs.row("mlflow"), flush=True)
    for name, load_ in (("serve", many), ("one at a time", one), ("mlflow", theirs)):
        if load_.errors:
            print(f"errors of {name}: {load_.errors}")
    rate = many.texts / many.lasted
    for name, load_ in (("one at a time", one), ("mlflow", theirs)):
        if load_.texts:
            print(f"serve / {name}: {rate / (load_.texts / load_.lasted):.2f}")


if __name__ == "__main__":
    main()
