"""Eight commands at once on one home, while a UI reads it and a training runs.

    EMBED_ASSETS_MODEL=FOLDER python benchmarks/side_by_side.py --pdfs PDFS

Half of the PDFs are there when `run` and `ui` begin; the other half comes once it trains. Meanwhile
eight commands are called again and again, each as soon as it ends. Those that fail are printed. At
the end the home is compared with that of one `run` on all the PDFs.
"""

import argparse
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kills import COMMAND, differences, end_those_left, run, state

READERS: Sequence[Sequence[str]] = (
    ("status", "--json"),
    ("search", "what is it for", "--json"),
    ("lineage", "--json"),
    ("ingest", "--json"),
)
SIDE_BY_SIDE = 8
NOT_YET = ("no version", "There is no", "no champion", "Nothing was trained", "Run `embed-assets")
"""What a reader may say of a home in which nothing was made yet."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pdfs", type=Path, required=True)
    parser.add_argument("--port", type=int, default=3456)
    given = parser.parse_args()
    every_pdf = sorted(given.pdfs.absolute().glob("*.pdf"))
    with tempfile.TemporaryDirectory() as scratch:
        pdfs, home = Path(scratch) / "pdfs", Path(scratch) / "home"
        pdfs.mkdir()
        half = len(every_pdf) // 2
        for pdf in every_pdf[:half]:
            shutil.copy(pdf, pdfs)
        ui = start(
            "ui", pdfs, home, "--port", str(given.port), "--mlflow-port", str(given.port + 1)
        )
        training = start("run", pdfs, home)
        over = threading.Event()
        said: Counter[str] = Counter()
        threads = [
            threading.Thread(
                target=call_again, args=(READERS[n % len(READERS)], pdfs, home, over, said)
            )
            for n in range(SIDE_BY_SIDE)
        ]
        threads.append(threading.Thread(target=read_pages, args=(given.port, over, said)))
        for thread in threads:
            thread.start()
        wait_for(home / "mlartifacts", training)
        for pdf in every_pdf[half:]:
            shutil.copy(pdf, pdfs)
        _, error = training.communicate()
        if training.returncode:
            said[f"run: exit {training.returncode}: {error[-500:]}"] += 1
        over.set()
        for thread in threads:
            thread.join()
        ui.terminate()
        ui.communicate()
        if error := run(pdfs, home):
            said[f"the last run: {error}"] += 1
        alone = Path(scratch) / "alone"
        run(pdfs, alone)
        tables = {key: rows for key, rows in state(alone).items() if key in OF_DOCUMENTS}
        there = {key: rows for key, rows in state(home).items() if key in OF_DOCUMENTS}
        for line in differences(tables, there):
            said[f"differs: {line}"] += 1
        for line in end_those_left(home):
            said[f"left at work: {line}"] += 1
    for line, times in sorted(said.items()):
        print(f"{times} × {line}")


OF_DOCUMENTS = tuple(
    f"rows of {name}" for name in ("raw_pdfs", "parsed_markdown", "chunks", "synthetic_questions")
)


def start(command: str, pdfs: Path, home: Path, *more: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*COMMAND, command, "--pdfs", str(pdfs), "--home", str(home), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for(folder: Path, process: "subprocess.Popen[str]") -> None:
    while not folder.exists() and process.poll() is None:
        time.sleep(0.5)


def call_again(
    arguments: Sequence[str], pdfs: Path, home: Path, over: threading.Event, said: Counter[str]
) -> None:
    while not over.is_set():
        ended = subprocess.run(
            [*COMMAND, *arguments, "--pdfs", str(pdfs), "--home", str(home)],
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode == 0:
            said[f"{arguments[0]}: done"] += 1
        elif any(words in ended.stderr for words in NOT_YET):
            said[f"{arguments[0]}: nothing there yet"] += 1
        else:
            said[f"{arguments[0]}: exit {ended.returncode}: {ended.stderr[-500:]}"] += 1


def read_pages(port: int, over: threading.Event, said: Counter[str]) -> None:
    """Read Dagster's pages once they are there."""
    there = False
    while not over.wait(2):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info", timeout=60) as page:
                page.read()
            there = True
            said["page: read"] += 1
        except OSError as error:
            said[f"page: {error}" if there else "page: not there yet"] += 1


if __name__ == "__main__":
    main()
