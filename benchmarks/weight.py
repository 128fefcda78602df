"""What a command costs beside its work, and what a document costs Dagster and the tables.

    python benchmarks/weight.py --documents 2000

Makes PDFs of one page and ingests them with the parser left out: the text that the file holds is
taken in its place, in the process of the command. What is left is Dagster, the tables, chunks and
questions. CPU seconds, of a process and its children: wall time says little on a busy machine.
"""

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

WORDS = ("valve", "pressure", "pump", "shaft", "seal", "bearing", "filter", "torque", "sensor")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=601)
    parser.add_argument("--part", type=int, default=100, help="documents at the start and the end")
    parser.add_argument("--keep", type=Path, help="folder of PDFs and home, kept and used again")
    parser.add_argument("--search", action="store_true", help="time `search` too: it encodes once")
    parser.add_argument("--command", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.command:
        run_without_parser(arguments.command)
        return
    with tempfile.TemporaryDirectory() as scratch:
        measure(arguments.keep or Path(scratch), arguments)


def measure(folder: Path, arguments: argparse.Namespace) -> None:
    """Fill a home and print what each command took."""
    pdfs, home = folder / "pdfs", folder / "home"
    pdfs.mkdir(parents=True, exist_ok=True)
    there = len(list(pdfs.glob("*.pdf")))
    steps = [min(arguments.part, arguments.documents)]
    steps += [max(steps[0], arguments.documents - arguments.part), arguments.documents]
    before = there
    for count in sorted({step for step in steps if step > there}):
        make_pdfs(pdfs, range(before, count))
        stored = event_bytes(home)
        cost = call(pdfs, home, "ingest", "--json")
        each = cost["cpu"] / (count - before)
        kept = (event_bytes(home) - stored) / (count - before) / 1000
        tell(
            f"{before} to {count} documents", cost, f"{each:.3f} s and {kept:.1f} KB of events each"
        )
        before = count
    tell(f"nothing new at {before}", call(pdfs, home, "ingest", "--json"))
    tell(f"nothing new at {before}", call(pdfs, home, "ingest", "--json"))
    for name in ("one more", "one more again"):
        make_pdfs(pdfs, range(before, before + 1))
        before += 1
        tell(f"{name} at {before}", call(pdfs, home, "ingest", "--json"))
    tell(f"status at {before}", call(pdfs, home, "status", "--json"))
    if arguments.search:
        for name in ("first search", "search"):
            tell(name, call(pdfs, home, "search", "how is the valve closed?", "--json"))


def make_pdfs(folder: Path, numbers: Sequence[int]) -> None:
    """PDFs of one page, each of its own words."""
    for number in numbers:
        chosen = random.Random(number)
        lines = [f"Manual {number} of the {chosen.choice(WORDS)}"]
        for _ in range(12):
            words = " ".join(chosen.choices(WORDS, k=9))
            lines.append(f"The {words} is set to {chosen.randrange(1000)}.")
        file = folder / f"{number:06}.pdf"
        file.write_bytes(pdf(lines))
        old = time.time() - 60
        os.utime(file, (old, old))


def pdf(lines: Sequence[str]) -> bytes:
    """A PDF of one page, in which each line stands as it is."""
    text = "\n".join(f"({line}) Tj T*" for line in lines)
    stream = f"BT /F 9 Tf 12 TL 50 780 Td\n{text}\nET".encode()
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 595 842]/Contents 4 0 R"
        b"/Resources<</Font<</F<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>>>",
        b"<</Length %d>>stream\n%b\nendstream" % (len(stream), stream),
    ]
    written, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(written))
        written += b"%d 0 obj%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    end = b"trailer<</Size 5/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % len(written)
    return written + b"xref\n0 5\n0000000000 65535 f \n" + table + end


def call(pdfs: Path, home: Path, *command: str) -> dict[str, float]:
    """CPU seconds and MB at its peak of a command of the project, its children with it."""
    own = [sys.executable, __file__, "--command", *command]
    options = ["--pdfs", str(pdfs), "--home", str(home)]
    with subprocess.Popen([*own, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        printed, said = run.communicate()
    if run.returncode or "error" in json.loads(printed):
        sys.exit(said.decode())
    return json.loads(said.decode().splitlines()[-1])


def tell(what: str, cost: Mapping[str, float], more: str = "") -> None:
    """Print what something cost."""
    print(f"{what:<28} {cost['cpu']:7.2f} s of CPU, {cost['memory']:5.0f} MB   {more}", flush=True)


def event_bytes(home: Path) -> int:
    """Bytes of Dagster's databases, their logs with them."""
    return sum(file.stat().st_size for file in (home / "dagster").rglob("*.db*"))


def run_without_parser(command: Sequence[str]) -> None:
    """A command of the project in this process; its costs are the last line on stderr."""
    from embed_assets.command.cli import app

    if command[0] == "ingest":
        leave_out_parser()
    try:
        app(list(command), standalone_mode=False)
    finally:
        both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        cost = {
            "cpu": sum(used.ru_utime + used.ru_stime for used in both),
            "memory": max(used.ru_maxrss for used in both) / 1024,
        }
        print(json.dumps(cost), file=sys.stderr, flush=True)


def leave_out_parser() -> None:
    """Have PDFs read as the text that they hold, and the pool work without a process of its own."""
    from embed_assets.documents import parsing
    from embed_assets.resources import workers

    class InProcess(workers.Workers):
        def __init__(self) -> None:
            pass

        def map(
            self, function: Callable[[Any], Any], items: Iterable[Any], **_: Any
        ) -> Iterator[Any]:
            for item in items:
                yield workers.Outcome(item, function(item))

        def work_off(self, function: Callable[[Any], Any], queue: deque[Any], **_: Any) -> Any:
            while queue:
                yield from self.map(function, [queue.popleft()])

    @contextmanager
    def start(self: workers.WorkerPool, most_items: int) -> Iterator[workers.Workers]:
        yield InProcess()

    workers.WorkerPool.start = start
    parsing.count_shared_pages = one_page
    parsing.parse_pages = text_alone


def one_page(*_: Any) -> int:
    return 1


def text_alone(content: bytes, *_: Any) -> list[Any]:
    """The page of a PDF of `pdf`."""
    from embed_assets.documents.reading import Page

    lines = re.findall(rb"\((.*)\) Tj", content)
    return [Page(1, b"\n".join(lines).decode())]


if __name__ == "__main__":
    main()
