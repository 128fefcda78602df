"""The whole pipeline: wall time by stage, the published recipe beside `embed-assets run`.

    python benchmarks/pipeline.py --pdfs DIR --work DIR [--documents N] [--max-pairs 1000]
        [--epochs 4] [--variant blog|notebook] [--added FILE] [--only recipe|ours|added]

On the same PDFs, with the same model, number of epochs and cap on training pairs, one after the
other on this machine, each in a fresh process and from nothing:

- recipe: benchmarks/recipe.py, which says what it keeps and leaves out
- ours: `embed-assets run` in a fresh home
- added: one PDF more. `embed-assets run` up to where the training would begin, in a copy of that
  home, against all that the recipe does before its training (it keeps nothing; its time is that of
  the first run, without the PDF more, so it is a little flattered)

The PDF that is added is `--added`, else the one with the median number of pages, which is kept back
from the first run. `--only` measures one of the three; the table is made of all that were measured
in DIR under the same options.

Rows of the table. Ours come from the times of Dagster's events: an asset's work is from the start
of its step to its output, with the reading and writing of its tables. `training` is training alone
in both, without validation. With `validation, final evaluation` stands, for ours, the start of the
training's own process, registering the model in MLflow and keeping it. Ours encodes its
questions under `pairs`, where a filter needs them, and takes them from a cache later.
`Dagster` is all of ours that is not in another row: the start of the process, imports, what is
stale, runs, steps, events, checks, the summary. So it is more than what Dagster costs, but for the
lines that an asset logs, which are in the asset's row. The JSON line has it in two parts: within
Dagster's runs, and outside of them.

Ours evaluates more: questions of three splits, up to three for a chunk, where the recipe asks one
for each chunk and tests on a tenth; and it logs and registers the model. The recipe's chunks are
twice as long as MiniLM reads, so there are fewer of them. Both are to the recipe's advantage.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
WARM_UP = "import dagster, mlflow, pymupdf4llm, sentence_transformers"
PARTS = ("recipe", "ours", "added")
ROW_OF_ASSET = {
    "raw_pdfs": "parse",
    "parsed_markdown": "parse",
    "chunks": "chunk",
    "synthetic_questions": "questions",
    "training_pairs": "pairs",
    "base_eval": "base evaluation",
    "finetuned_model": "validation, final evaluation",  # less the training
    "comparison": "comparison, report",
}
ROW_OF_STAGE = {
    "imports": "start, imports, loading",
    "model": "start, imports, loading",
    "validation": "validation, final evaluation",
    "final evaluation": "validation, final evaluation",
}
BEFORE_TRAINING = ("parse", "chunk", "questions", "pairs", "base evaluation")
ROWS = (
    *BEFORE_TRAINING,
    "training",
    "validation, final evaluation",
    "comparison, report",
    "start, imports, loading",
    "Dagster",
)
COUNTS = ("chunks", "queries", "pairs", "training_pairs_per_second")
TARGET_FIRST, TARGET_ADDED = 0.6, 0.1


@dataclass(frozen=True)
class Setting:
    """What both are given. Figures are compared only under the same one."""

    documents: tuple[str, ...]
    added: str
    model: str
    max_pairs: int
    epochs: int
    variant: str


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--pdfs", type=Path, help="folder of PDFs")
    parser.add_argument("--work", type=Path, help="folder for all that is written")
    parser.add_argument("--documents", type=int, default=0, help="PDFs of the first run; 0: all")
    parser.add_argument("--added", type=Path, help="PDF that is added; else one is kept back")
    parser.add_argument("--max-pairs", type=int, default=1000, help="training pairs; 0: all")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--variant", choices=["blog", "notebook"], default="blog")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--only", choices=PARTS)
    parser.add_argument("--before-training", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.before_training:
        run_before_training()
        return
    if not arguments.pdfs or not arguments.work:
        parser.error("give --pdfs DIR and --work DIR")
    work = arguments.work.resolve()
    first, added = choose(arguments.pdfs.resolve(), arguments.documents, arguments.added)
    setting = Setting(
        documents=tuple(pdf.name for pdf in first),
        added=added.name,
        model=arguments.model,
        max_pairs=arguments.max_pairs,
        epochs=arguments.epochs,
        variant=arguments.variant,
    )
    measure: Mapping[str, Callable[[Setting, Path], dict[str, Any]]] = {
        "recipe": measure_recipe,
        "ours": measure_ours,
        "added": measure_added,
    }
    parts = [arguments.only] if arguments.only else list(PARTS)
    if parts == ["added"] and measured(work, setting, "ours") is None:
        parser.error("--only added needs what --only ours leaves in --work, with these options")
    run([sys.executable, "-c", WARM_UP], work, "warm-up", {})
    for part in parts:
        lay_out(work / "pdfs", [*first, added] if part == "added" else first)
        figures = measure[part](setting, work)
        text = json.dumps({"setting": asdict(setting), **figures})
        (work / f"{part}.json").write_text(text, encoding="utf-8")
        print(f"{part}: {figures['wall']:.0f} s", file=sys.stderr)
    report(setting, {part: measured(work, setting, part) for part in PARTS})


def choose(folder: Path, documents: int, added: Path | None) -> tuple[list[Path], Path]:
    """PDFs of the first run, and the one that is added after it."""
    import pymupdf

    pdfs = sorted(folder.glob("*.pdf"))
    if added is None:
        if len(pdfs) < 2:
            sys.exit(f"{folder}: one PDF is kept back, so give two or more, or --added FILE.")
        by_length = sorted(pdfs, key=lambda pdf: (len(pymupdf.open(pdf)), pdf.name))
        added = by_length[len(by_length) // 2]
    first = [pdf for pdf in pdfs if pdf.name != added.name][: documents or None]
    if not first:
        sys.exit(f"There are no PDFs in {folder}.")
    return first, added.resolve()


def lay_out(folder: Path, pdfs: Sequence[Path]) -> None:
    """Copy these PDFs into a folder, and no others; those that are there stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for stale in {path.name for path in folder.iterdir()} - {pdf.name for pdf in pdfs}:
        (folder / stale).unlink()
    for pdf in pdfs:
        if not (folder / pdf.name).exists():
            shutil.copy2(pdf, folder / pdf.name)


def measured(work: Path, setting: Setting, part: str) -> dict[str, Any] | None:
    """What was measured of a part under this setting, if it was."""
    file = work / f"{part}.json"
    if not file.is_file():
        return None
    figures = json.loads(file.read_text(encoding="utf-8"))
    same = json.loads(json.dumps(asdict(setting)))
    return figures if figures.pop("setting") == same else None


def measure_recipe(setting: Setting, work: Path) -> dict[str, Any]:
    """The recipe's wall time, by row."""
    shutil.rmtree(work / "recipe", ignore_errors=True)
    command = [sys.executable, str(HERE.with_name("recipe.py")), "--pdfs", str(work / "pdfs")]
    command += ["--folder", str(work / "recipe"), "--model", setting.model]
    command += ["--max-pairs", str(setting.max_pairs), "--epochs", str(setting.epochs)]
    wall, output = run([*command, "--variant", setting.variant], work, "recipe", {})
    result = json.loads(output)
    rows: dict[str, float] = defaultdict(float)
    seconds_of: dict[str, float] = result.pop("seconds")
    for stage, seconds in seconds_of.items():
        rows[ROW_OF_STAGE.get(stage, stage)] += seconds
    rows["start, imports, loading"] += wall - sum(rows.values())
    after = ("training", "validation, final evaluation")
    return {
        "wall": wall,
        "before": wall - sum(rows[row] for row in after),
        "rows": rows,
        **result,
        "training_pairs_per_second": pairs_per_second(result["pairs"], setting, rows),
    }


def measure_ours(setting: Setting, work: Path) -> dict[str, Any]:
    """The wall time of `embed-assets run` in a fresh home, by row."""
    home = work / "home"
    shutil.rmtree(home, ignore_errors=True)
    command = [sys.executable, "-m", "embed_assets.command.cli", "run", "--json"]
    wall, output = run(command, work, "ours", environment(setting, work, home))
    summary = json.loads(output)
    rows, dagster = read_events(home, wall)
    training = read_training(home)
    rows["training"] = training["seconds"]
    rows["validation, final evaluation"] -= training["seconds"]
    steps = summary["seconds_by_asset"]
    return {
        "wall": wall,
        "before": wall - steps["finetuned_model"] - steps["comparison"],
        "rows": rows,
        **dagster,
        "documents": sum(summary["documents"].values()),
        "chunks": summary["chunks"],
        "queries": sum(n for split, n in summary["pairs"].items() if split != "train"),
        "pairs": int(training["pairs"]),
        "training_pairs_per_second": pairs_per_second(training["pairs"], setting, rows),
    }


def measure_added(setting: Setting, work: Path) -> dict[str, Any]:
    """The wall time up to the training after one PDF more, by row."""
    home = work / "home-added"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(work / "home", home)
    known = set(run_ids(home))
    command = [sys.executable, str(HERE), "--before-training"]
    wall, _ = run(command, work, "added", environment(setting, work, home))
    rows, dagster = read_events(home, wall, known)
    return {"wall": wall, "before": wall, "rows": rows, **dagster}


def run_before_training() -> None:
    """What `embed-assets run` does, up to the training. In a process of its own."""
    import dagster as dg

    from embed_assets.automation.runs import TRAIN
    from embed_assets.command.pipeline import bring_up_to_date
    from embed_assets.definitions import build_definitions
    from embed_assets.settings import Settings

    settings = Settings()
    bring_up_to_date(settings, train=False)
    with dg.DagsterInstance.get() as instance:
        build_definitions(settings).resolve_job_def(TRAIN).execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("training_pairs"), dg.AssetKey("base_eval")],
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )


def environment(setting: Setting, work: Path, home: Path) -> dict[str, str]:
    """What a person would set."""
    return {
        "EMBED_ASSETS_PDFS": str(work / "pdfs"),
        "EMBED_ASSETS_HOME": str(home),
        "EMBED_ASSETS_MODEL": setting.model,
        "EMBED_ASSETS_MAX_PAIRS": str(setting.max_pairs),
        "EMBED_ASSETS_EPOCHS": str(setting.epochs),
    }


def run(
    command: Sequence[str], work: Path, name: str, variables: Mapping[str, str]
) -> tuple[float, str]:
    """Seconds and stdout of a process. In `work`, where no `.env` is, without settings of ours."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("EMBED_ASSETS_")
        and key not in ("DAGSTER_HOME", "MLFLOW_TRACKING_URI")
    }
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), kept.get("PYTHONPATH")]))
    work.mkdir(parents=True, exist_ok=True)
    log = work / f"{name}.log"
    with log.open("w", encoding="utf-8") as errors:
        start = time.perf_counter()
        done = subprocess.run(
            command,
            cwd=work,
            env={**kept, "PYTHONPATH": path, **variables},
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        seconds = time.perf_counter() - start
    if done.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8").splitlines()[-20:])
        sys.exit(f"{tail}\n{name} failed with {done.returncode}; all it said is in {log}.")
    return seconds, done.stdout


def read_events(
    home: Path, wall: float, known: set[str] | frozenset[str] = frozenset()
) -> tuple[dict[str, float], dict[str, float]]:
    """Seconds of the assets' work by row, what is left of the wall time being Dagster's; and its
    two parts. known: ids of runs that are not to be counted.
    """
    rows: dict[str, float] = defaultdict(float)
    in_runs = 0.0
    with instance_of(home) as instance:
        for run_id in set(run_ids(home)) - known:
            logs = instance.all_logs(run_id)
            in_runs += logs[-1].timestamp - logs[0].timestamp
            # An asset's work: from its step's start to its output, and until its table is written,
            # after which Dagster stores that it was.
            started: dict[str, float] = {}
            worked: dict[str, float] = {}
            for entry in logs:
                event = entry.dagster_event
                step = entry.step_key
                if event is None or step not in ROW_OF_ASSET:
                    continue
                kind = event.event_type_value
                if kind == "STEP_START":
                    started[step] = entry.timestamp
                elif kind in ("STEP_OUTPUT", "ASSET_MATERIALIZATION") and step in started:
                    worked[step] = entry.timestamp - started[step]
                    if kind == "ASSET_MATERIALIZATION":
                        del started[step]
            for step, seconds in worked.items():
                rows[ROW_OF_ASSET[step]] += seconds
    work = sum(rows.values())
    rows["Dagster"] = wall - work
    return rows, {"dagster_in_runs": in_runs - work, "dagster_outside_runs": wall - in_runs}


def run_ids(home: Path) -> list[str]:
    """Ids of all Dagster runs in a home."""
    with instance_of(home) as instance:
        return [record.run_id for record in instance.get_runs()]


def instance_of(home: Path) -> Any:
    """The Dagster instance in a home, to read."""
    import dagster as dg

    os.environ["DAGSTER_HOME"] = str(home / "dagster")
    return dg.DagsterInstance.get()


def pairs_per_second(pairs: float, setting: Setting, rows: Mapping[str, float]) -> float:
    """Of training alone."""
    return round(pairs * setting.epochs / rows["training"], 2)


def read_training(home: Path) -> dict[str, float]:
    """What the training process measured of itself."""
    import logging

    from mlflow import MlflowClient

    from embed_assets.command.summary import newest_model
    from embed_assets.resources.warehouse import Warehouse
    from embed_assets.training.tracked import RESULT

    logging.getLogger("alembic").setLevel(logging.WARNING)
    model = newest_model(Warehouse(path=str(home / "warehouse.duckdb")))
    client = MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    metrics = client.get_run(model["mlflow_run_id"]).data.metrics
    return {name.removeprefix(f"{RESULT}/"): value for name, value in metrics.items()}


def report(setting: Setting, figures: Mapping[str, dict[str, Any] | None]) -> None:
    """Print the table and, on the last line, all figures as JSON."""
    recipe, ours, added = (figures[part] for part in PARTS)
    cap = f"at most {setting.max_pairs} pairs" if setting.max_pairs else "all pairs"
    print(
        f"{len(setting.documents)} PDFs, then {setting.added}; {setting.model}, "
        f"{setting.epochs} epochs, {cap}; the recipe as in the {setting.variant}; "
        f"{os.cpu_count()} cores\n"
    )
    print("| seconds | recipe | ours | ratio | ours after one PDF more |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for row in ROWS:
        times = [part["rows"].get(row) if part else None for part in (recipe, ours, added)]
        print(table_row(row, *times))
    for row, key in (("all", "wall"), ("all before the training", "before")):
        times = [part[key] if part else None for part in (recipe, ours, added)]
        print(table_row(f"**{row}**", *times))
    print("\n| | recipe | ours |")
    print("| --- | ---: | ---: |")
    for count in COUNTS:
        counts = [str(part[count]) if part else "" for part in (recipe, ours)]
        print(f"| {count.replace('_', ' ')} | {' | '.join(counts)} |")
    ratios = {}
    if recipe and ours:
        ratios["first"] = ours["wall"] / recipe["wall"]
        print(f"\nThe first time: {ratios['first']:.2f} of the recipe's (target {TARGET_FIRST}).")
        if recipe["pairs"] != ours["pairs"]:
            print(
                f"NOT LIKE FOR LIKE: {recipe['pairs']} pairs in the recipe, {ours['pairs']} in "
                "ours. Give a --max-pairs that both have."
            )
    if recipe and added:
        ratios["added"] = added["before"] / recipe["before"]
        print(
            f"After one PDF more: {ratios['added']:.3f} of all that the recipe does before its "
            f"training (target {TARGET_ADDED})."
        )
    print(json.dumps({"setting": asdict(setting), **figures, "ratios": ratios}))


def table_row(
    name: str,
    recipe: float | None,
    ours: float | None,
    added: float | None,
) -> str:
    """A line of the table; a ratio where the recipe takes a second or more."""

    def cell(value: float | None) -> str:
        return "" if value is None else f"{value:.1f}"

    ratio = "" if recipe is None or recipe < 1 or ours is None else f"{ours / recipe:.2f}"
    return f"| {name} | {cell(recipe)} | {cell(ours)} | {ratio} | {cell(added)} |"


if __name__ == "__main__":
    main()
