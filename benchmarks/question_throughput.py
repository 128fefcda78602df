"""Questions from a language model: how much of the possible throughput is used, and at what memory.

A server on loopback answers each call after a fixed time. With C calls at a time none can do better
than N / C times that. Measured are the share of it that is reached, the calls of a second run on
the same chunks (0: every answer was kept), the memory over the run, and what it takes to keep an
answer, in the store and, for comparison, in the DuckDB warehouse.

    python benchmarks/question_throughput.py [--chunks 2000] [--latency 0.5] [--concurrency 16]
    python benchmarks/question_throughput.py --chunks 20000 --latency 0.2 --concurrency 64
"""

import argparse
import asyncio
import hashlib
import json
import multiprocessing
import os
import tempfile
import threading
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import polars as pl

from embed_assets.questions.written.writing import Writing, written_questions
from embed_assets.resources.answers import AnswerStore, reply_now
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

ENTRY = {"kind": "question", "question": "How long is it?", "answer": "long", "answerable": True}
REPLY = json.dumps(
    {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "fake",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": json.dumps({"questions": [ENTRY]})},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 800, "completion_tokens": 60, "total_tokens": 860},
    }
).encode()
SENTENCE = "the valve of pump number is opened by hand when pressure falls below two bar"


def serve(port: Synchronized, calls: Synchronized, latency: float) -> None:
    """Answer each call after so many seconds, in a process of its own."""

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                calls.value += 1
                await asyncio.sleep(latency)
                status = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                writer.write(status + b"Content-Length: %d\r\n\r\n" % len(REPLY) + REPLY)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionResetError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=1024)
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(main())


def make_chunks(count: int) -> pl.DataFrame:
    """Chunks of some 120 words, each another text."""
    texts = [" ".join([str(i), *[SENTENCE] * 8]) for i in range(count)]
    return pl.DataFrame(
        {
            "document_id": "d",
            "chunk_index": range(count),
            "chunk_id": [hashlib.md5(text.encode()).hexdigest() for text in texts],
            "chunk_text": texts,
            "heading_path": "Manual",
            "page_start": 1,
            "page_end": 1,
            "token_count": 130,
            "file_name": "d.pdf",
        },
        schema=TABLES["chunks"].schema,
    )


def resident_mib() -> float:
    """Memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def milliseconds_per_answer(home: Path, count: int = 50) -> tuple[float, float]:
    """To keep an answer in the store, and in a table of the warehouse."""
    with AnswerStore(path=str(home / "timing.sqlite")).open("m", "1", "s") as answers:
        start = time.perf_counter()
        for i in range(count):
            answers.put(str(i), reply_now(json.dumps(ENTRY), 1, 1))
        store = (time.perf_counter() - start) / count
    warehouse = Warehouse(path=str(home / "timing.duckdb"))
    row = TABLES["split_assignments"]
    start = time.perf_counter()
    for i in range(count):
        frame = pl.DataFrame({"kind": ["k"], "id": [str(i)], "split": ["s"]}, schema=row.schema)
        warehouse.replace("split_assignments", frame, where={"id": [str(i)]})
    return 1000 * store, 1000 * (time.perf_counter() - start) / count


def main() -> None:
    """Measure, and print one line per figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--chunks", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.5, help="seconds")
    parser.add_argument("--concurrency", type=int, default=16)
    arguments = parser.parse_args()

    context = multiprocessing.get_context("spawn")
    port, calls = context.Value("i", 0), context.Value("i", 0)
    server = context.Process(target=serve, args=(port, calls, arguments.latency), daemon=True)
    server.start()
    while not port.value:
        time.sleep(0.05)
    os.environ |= {"OPENAI_BASE_URL": f"http://127.0.0.1:{port.value}/v1", "OPENAI_API_KEY": "k"}

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        settings = Settings(
            home=home, questions="openai:fake", llm_concurrency=arguments.concurrency
        )
        writing = Writing(settings, AnswerStore(path=str(settings.answers)), "s", lambda _: None)
        written_questions(make_chunks(1).with_columns(chunk_text=pl.lit("warm-up")), writing)
        chunks = make_chunks(arguments.chunks)
        warm_up, samples, done = calls.value, [], threading.Event()

        def watch() -> None:
            while not done.wait(0.5):
                samples.append((calls.value - warm_up, resident_mib()))

        watcher = threading.Thread(target=watch)
        watcher.start()
        start = time.perf_counter()
        rows = written_questions(chunks, writing)
        taken = time.perf_counter() - start
        done.set()
        watcher.join()
        assert rows.height == arguments.chunks

        possible = -(-arguments.chunks // arguments.concurrency) * arguments.latency
        print(f"first run: {calls.value - warm_up} calls in {taken:.1f} s")
        print(f"share of the possible throughput: {possible / taken:.1%} ({possible:.1f} s)")
        for part in (0.1, 0.5, 0.9):
            at = min(samples, key=lambda s: abs(s[0] - part * arguments.chunks), default=(0, 0))
            print(f"memory after {at[0]} calls: {at[1]:.0f} MiB")

        before, start = calls.value, time.perf_counter()
        again = written_questions(chunks, writing)
        assert again.equals(rows)
        print(f"second run: {calls.value - before} calls, {time.perf_counter() - start:.1f} s")
        store, duckdb = milliseconds_per_answer(home)
        print(f"to keep an answer: {store:.2f} ms in the store, {duckdb:.1f} ms in the warehouse")
    server.kill()


if __name__ == "__main__":
    main()
