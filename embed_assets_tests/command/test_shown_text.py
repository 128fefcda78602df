"""No command lets a terminal obey the text of others, or begins a line with it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from embed_assets.command.forget import forget_text, remember_text
from embed_assets.command.lineage import document_text, lineage_text
from embed_assets.command.status import status_text
from embed_assets.command.summary import ingest_text, run_text
from embed_assets.pairs.splits import TRAIN
from embed_assets.questions.statuses import BAD_ROW, KEPT, NO_SUCH_FILE
from embed_assets.search.shown import search_text
from embed_assets.training.bundle.verifying import verification_text
from embed_assets.wording import to_json
from embed_assets_tests.command.test_summary import SUMMARY
from embed_assets_tests.hostile import HOSTILE, OBEYED, file_name

HARMLESS = "harmless"


def ended(text: str) -> dict[str, Any]:
    return SUMMARY | {
        "failed": [{"path": text, "error": text, "attempts": 2, "final": False}],
        "empty": [{"path": text, "error": text}],
        "partly": [{"path": text, "pages": [1], "share": 0.5, "error": text}],
        "unmatched_labelled": [
            {
                "source": text,
                "place": text,
                "file_name": text,
                "question": text,
                "reason": reason,
                "why": text,
            }
            for reason in (NO_SUCH_FILE, BAD_ROW)
        ],
        "baselines_failed": [{"model": text, "error": text}],
        "waiting": [{"what": text, "reason": text}],
        "verdict": text,
        "reservations": [text],
    }


def status(text: str) -> dict[str, Any]:
    return {
        "folder": {"documents": 1, "new": 1},
        "due": [{"asset": "chunks", "documents": 1, "reason": text}],
        "waiting": [{"what": text, "reason": text}],
        "failed": [{"path": text, "error": text}],
        "empty": [{"path": text, "error": text}],
        "partly": [{"path": text, "pages": [1], "share": 0.5, "error": text}],
        "models": {"champion": None},
        "retraining": {"due": False, "reason": text},
    }


def found(text: str) -> dict[str, Any]:
    row = {
        "score": 0.5,
        "path": text,
        "heading_path": text,
        "page_start": 1,
        "page_end": 2,
        "chunk_text": text,
        "cosine": 0.1,
        "dense_rank": 1,
        "lexical_rank": None,
        "likely": False,
    }
    return {
        "query": text,
        "model": text,
        "version": None,
        "newest": None,
        "champion": "1",
        "prepared": False,
        "mode": "hybrid",
        "cutoff": 0.2,
        "cutoff_questions": 40,
        "results": [row],
    }


def document(text: str) -> dict[str, Any]:
    asked = {"question": text, "status": KEPT, "split": TRAIN, "pages": (1, 1), "versions": ["1"]}
    return {
        "path": text,
        "document_id": "a",
        "chunks": 1,
        "questions": [asked],
        "figures": [],
        "forgotten": False,
        "on_record": True,
        "held_out": False,
        "versions": [],
        "mlflow_error": text,
    }


def version(text: str) -> dict[str, Any]:
    return {
        "version": "1",
        "base": text,
        "base_revision": None,
        "questions": 1,
        "chunks": [],
        "trained_from": None,
        "settings_set": {"model": text},
        "trained_at": "2026-11-27T10:00",
        "seconds": None,
        "energy_wh": None,
        "splits": {},
        "code": text,
        "machine": text,
        "model": text,
        "pairs": text,
        "dagster_run_id": "r",
        "dagster_run": "",
        "aliases": [],
        "mlflow_run_id": "m",
        "mlflow_run": None,
        "mlflow_error": text,
        "comparison": None,
        "documents": [{"questions": 1, "sha256": "0" * 64, "path": text}],
    }


def forgotten(text: str) -> dict[str, Any]:
    return {
        "documents": [{"path": text}],
        "rows": {},
        "versions": [],
        "withdrawn": [],
        "retraining": {"reason": text},
        "in_folder": [text],
        "not_looked_at": [text],
    }


TEXTS: dict[str, Callable[[str], str]] = {
    "run": lambda text: run_text(ended(text)),
    "run --details": lambda text: run_text(ended(text), details=True),
    "ingest": lambda text: ingest_text(ended(text)),
    "ingest --details": lambda text: ingest_text(ended(text), details=True),
    "status": lambda text: status_text(status(text)),
    "search": lambda text: search_text(found(text)),
    "lineage": lambda text: lineage_text(version(text)),
    "lineage --document": lambda text: document_text(document(text)),
    "lineage --verify": lambda text: verification_text({"valid": False, "problems": [text]}),
    "forget": lambda text: forget_text(forgotten(text)),
    "forget --remember": lambda text: remember_text({"documents": [{"path": text}]}),
}


@pytest.mark.parametrize("command", TEXTS)
def test_what_a_command_says_holds_nothing_that_a_terminal_obeys(command):
    lines = TEXTS[command](HARMLESS).count("\n")
    for name, text in HOSTILE.items():
        said = TEXTS[command](text)
        assert not OBEYED.search(said), name
        assert said.count("\n") == lines, name


def test_json_says_the_same_and_is_shown_as_it_is():
    for text in (*HOSTILE.values(), "half \ud83d a character \udce9"):
        shown = to_json({"path": text, "folder": {text: [text]}})
        assert not OBEYED.search(shown)
        assert "\n" not in shown
        assert json.loads(shown.encode()) == {"path": text, "folder": {text: [text]}}


def test_the_command_shows_hostile_names_and_obeys_none(tmp_path):
    folder = tmp_path / "pdfs"
    folder.mkdir()
    for text in HOSTILE.values():
        os.mkfifo(folder / file_name(text))
    (folder / "a.pdf").write_bytes(b"%PDF-1.7")
    command = [sys.executable, "-m", "embed_assets.command.cli", "status", "--details"]
    places = ["--pdfs", str(folder), "--home", str(tmp_path / "home")]
    for option in ("--json", "--k\x1b[2J\n"):
        done = subprocess.run([*command, *places, option], capture_output=True, check=False)
        for shown in (done.stdout.decode(), done.stderr.decode()):
            assert not OBEYED.search(shown)
        if option == "--json":
            failed = {row["path"] for row in json.loads(done.stdout)["failed"]}
            assert failed == {*map(file_name, HOSTILE.values())}
        else:
            assert done.returncode == 2
