"""The command where a machine is set up in ways that its authors' aren't."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import pytest

from embed_assets.partitions import document_id

NAME = "Überprüfung – 报告.pdf"
ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
"""As on a server without a UTF-8 locale: Python alone would go around it, so that is forbidden."""
SHADOWS = ("embed_assets/__init__", "polars", "tokenizers", "random")


@pytest.fixture
def another_file_system(tmp_path: Path) -> Iterator[Path]:
    """A folder on another file system than the temporary one, where the machine has one."""
    memory = Path("/dev/shm")
    elsewhere = memory.is_dir() and memory.stat().st_dev != tmp_path.stat().st_dev
    with TemporaryDirectory(dir=memory if elsewhere else tmp_path) as folder:
        yield Path(folder)


def test_a_run_in_an_ascii_locale_beside_files_named_like_modules_with_its_home_elsewhere(
    five_pdfs: Callable[[Path], Path],
    environment: dict[str, str],
    command: str,
    another_file_system: Path,
    tmp_path: Path,
) -> None:
    pdfs = five_pdfs(tmp_path / "PDFs für alle")
    shutil.move(pdfs / "apiary-handbook.pdf", pdfs / NAME)
    work = tmp_path / "work"
    for shadow in SHADOWS:
        module = work / f"{shadow}.py"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text(f"raise SystemExit('{shadow} of the working directory')")
    (work / ".env").write_text(f"EMBED_ASSETS_PDFS={pdfs}\n", encoding="utf-8")
    home = another_file_system / "home"
    done = subprocess.run(
        [command, "run", "--home", str(home), "--json"],
        env={**environment, **ASCII},
        cwd=work,
        capture_output=True,
        timeout=600,
        check=False,
    )
    said = done.stderr.decode("utf-8", "replace")
    assert done.returncode == 0, said
    result = json.loads(done.stdout)
    assert result["documents"] == {"SUCCESS": 5, "EMPTY": 0, "ERROR": 0}
    assert (Path(result["model"]["path"]) / "model.safetensors").is_file()

    # No terminal either: a line for each piece of work here, and none over another.
    assert "\r" not in said
    assert said.count("Parsing PDFs: 100%, 10/10") == 1
    assert said.count("Training: 100%") == 1

    lineage = subprocess.run(
        [command, "lineage", "--home", str(home), "--json"],
        env=environment,  # in the locale of these tests
        cwd=work,
        capture_output=True,
        timeout=120,
        check=True,
    )
    names = {row["path"]: row["document_id"] for row in json.loads(lineage.stdout)["documents"]}
    assert all(key == document_id(PurePosixPath(path)) for path, key in names.items())
    ids = subprocess.run(
        [sys.executable, "-c", IDS, str(home)], capture_output=True, text=True, check=True
    )
    assert document_id(PurePosixPath(NAME)) in ids.stdout.split()


IDS = """
import duckdb, sys
with duckdb.connect(sys.argv[1] + "/warehouse.duckdb", read_only=True) as connection:
    print(*[key for key, in connection.execute("SELECT document_id FROM raw_pdfs").fetchall()])
"""


def test_where_python_may_not_read_names_as_utf_8_it_is_said_once(
    environment: dict[str, str], tmp_path: Path
) -> None:
    """The command starts Python again in UTF-8, and would do so for ever where that is refused."""
    python = [sys.executable, "-X", "utf8=0", "-m", "embed_assets.command.cli"]
    done = subprocess.run(
        [*python, "lineage"],
        env={**environment, **ASCII},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "another encoding than UTF-8" in done.stderr


def test_a_person_without_rights_to_the_home_is_told_so_in_one_line(
    five_pdfs: Callable[[Path], Path],
    environment: dict[str, str],
    command: str,
    tmp_path: Path,
) -> None:
    pdfs = five_pdfs(tmp_path / "pdfs")
    (tmp_path / "a file").write_text("")
    done = subprocess.run(
        [command, "run", "--pdfs", str(pdfs), "--home", str(tmp_path / "a file" / "home")],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert "EMBED_ASSETS_HOME: " in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
