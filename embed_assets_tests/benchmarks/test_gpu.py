"""The benchmark that is carried to a machine with a GPU, run here on a CPU with a tiny model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import embed_assets
from embed_assets_tests.tiny_model import make_tiny_model

REPOSITORY = Path(embed_assets.__file__).parents[1]
BENCHMARK = REPOSITORY / "benchmarks" / "gpu.py"
ARMS = ["encoding", "recipe fp32", "ours bf16", "ours bf16, cached", "ours bf16, torchrun"]
ABSENT = ("dagster", "dagster_pipes", "mlflow", "duckdb", "pymupdf")
WITHOUT = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None  # importing it fails
"""
WORDS = ("valve", "pump", "brine", "tape", "winch", "engine", "wing", "dose", "token", "contract")

pytestmark = pytest.mark.skipif(not BENCHMARK.is_file(), reason="the package alone is installed")


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    """A BEIR folder of forty documents, each with two queries."""
    folder = tmp_path / "beir"
    folder.mkdir()
    documents = {f"{word}{n}": f"the {word} is in section {n}" for n in range(4) for word in WORDS}
    queries = {f"q{n}-{i}": f"{n}, where is {i}" for i in documents for n in range(2)}
    lines = [json.dumps({"_id": i, "title": "", "text": text}) for i, text in documents.items()]
    (folder / "corpus.jsonl").write_text("\n".join(lines), encoding="utf-8")
    lines = [json.dumps({"_id": i, "text": text}) for i, text in queries.items()]
    (folder / "queries.jsonl").write_text("\n".join(lines), encoding="utf-8")
    rows = [f"{query}\t{query.partition('-')[2]}\t1" for query in queries]
    (folder / "qrels.tsv").write_text(
        "\n".join(["query-id\tcorpus-id\tscore", *rows]), encoding="utf-8"
    )
    return folder


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Where Dagster, MLflow and DuckDB can't be imported, as on a machine that has none of them."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT, encoding="utf-8")
    path = os.pathsep.join([str(site), str(REPOSITORY)])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def run(beir: Path, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, str(BENCHMARK), "--beir", str(beir), *arguments]
    return subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, text=True, timeout=600, check=True
    ).stdout


@pytest.mark.parametrize("arms", [[ARMS[0], ARMS[2]], pytest.param(ARMS, marks=pytest.mark.long)])
def test_every_figure_is_measured_without_dagster_mlflow_or_duckdb(
    tmp_path: Path, beir: Path, environment: dict[str, str], arms: list[str]
) -> None:
    model, out = str(make_tiny_model(tmp_path / "model")), tmp_path / "rows.jsonl"
    said = run(
        beir, environment, "--model", model, "--steps", "2", "--arms", *arms, "--out", str(out)
    )
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert [row["arm"] for row in rows] == arms
    assert "not measured" not in said
    for row in rows[1:]:
        assert row["pairs_per_second"] > 0
        assert row["peak_gib"] > 0
        assert row["ndcg_at_10"].keys() == {"32"}
    assert set(rows[0]["texts_per_second"]) == {
        f"{who} {precision}" for who in ("encode", "ours") for precision in ("fp32", "bf16")
    }
    assert re.search(r"Encoding in bf16: [\d.]+ times `encode`", said)
    assert said == run(beir, environment, "--report", str(out))


def test_an_arm_that_fails_or_has_no_time_left_says_so_and_the_table_is_printed(
    tmp_path: Path, beir: Path, environment: dict[str, str]
) -> None:
    nowhere = run(beir, environment, "--model", str(tmp_path / "none"), "--arms", "ours fp32")
    assert "| ours fp32 | not measured: ended with exit code 1 |" in nowhere
    late = run(beir, environment, "--minutes", "0", "--arms", "recipe bf16", "encoding")
    assert "| recipe bf16 | not measured: no time was left |" in late
    assert "Encoding: not measured: no time was left" in late
