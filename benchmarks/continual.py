"""Retraining from the base or on from the champion, as manuals arrive in portions.

    python benchmarks/continual.py --manuals DIR --work DIR [--max-pairs N] [--general BEIR_FOLDER]

DIR of --manuals holds `pdfs/` and people's `questions.jsonl`, which test. A quarter of the PDFs
arrives at a time. After each portion the asset finetuned_model trains twice, once for each
EMBED_ASSETS_RETRAIN_FROM, with the same settings; each arm's last version is the champion that it
may go on from, whatever a comparison would say. The first training is the same for both. All of it
is in one home in --work, which has to be new.

Prints, for each training, its pairs, the seconds of its steps alone and of the whole asset, and
NDCG@10 at full size, as it is and against the base model: on the questions about the portion that
has just arrived, about those before it, and on a general set. The corpus is all chunks that are
there by then, so only differences compare across portions. The last line is all of it as JSON.
"""

import argparse
import json
import os
import shutil
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import dagster as dg
import polars as pl

from embed_assets.automation.runs import TRAIN
from embed_assets.command.pipeline import bring_up_to_date
from embed_assets.definitions import build_definitions, build_resources
from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.scoring import RetrievalTask, retrieval_task, score_encoder
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.registry import make_champion, newest_model, trained_version
from embed_assets.pairs.splits import LABELLED
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training import start

ARMS = ("base", "champion")
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
GENERAL = "general"


@dataclass(frozen=True)
class Project:
    """A home in which both arms train. settings: what both have in common."""

    settings: Settings

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(path=str(self.settings.warehouse))

    @property
    def tracking(self) -> Tracking:
        return build_resources(self.settings)["tracking"]

    def ingest(self, pdfs: Sequence[Path]) -> None:
        for pdf in pdfs:
            shutil.copy(pdf, self.settings.pdfs / pdf.name)
        bring_up_to_date(self.settings, train=False)
        self.make("training_pairs")

    def train(self, arm: str, champion: str | None) -> dict[str, Any]:
        """Figures of a training that may go on from a version."""
        if champion is not None:
            make_champion(self.tracking, champion)
        began = time.perf_counter()
        self.make("finetuned_model", retrain_from=arm)
        taken = time.perf_counter() - began
        model = newest_model(self.warehouse)
        metrics = self.tracking.client().get_run(model["mlflow_run_id"]).data.metrics
        return {
            "version": model["version"],
            "trained_from": model["trained_from"],
            "pairs": int(metrics["pairs"]),
            "seconds": metrics["seconds"],
            "all_seconds": round(taken, 1),
        }

    def make(self, asset: str, **options: str) -> None:
        config = {"ops": {asset: {"config": options}}} if options else {}
        with dg.DagsterInstance.get() as instance:
            build_definitions(self.settings).resolve_job_def(TRAIN).execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(asset)], run_config=QUIET | config
            )

    def card(self, version: str | None) -> ModelCard:
        """Of a version, or of the base model."""
        if version is None:
            return model_card(self.settings)
        return trained_version(newest_model(self.warehouse, version)).card

    def ndcg(self, version: str | None, task: RetrievalTask) -> dict[str, float]:
        """NDCG@10 of each question of a task."""
        encoder = CachedEncoder(self.warehouse, self.card(version), self.settings.precision)
        found = score_encoder(task, encoder).queries
        return dict(found.select("question_id", "ndcg_at_10").iter_rows())


def read_general(folder: Path) -> RetrievalTask:
    """A BEIR folder as a task."""
    read = read_beir(folder)
    questions = [
        {"question_id": key, "anchor": text, "relevant_chunk_ids": sorted(read.relevant[key])}
        for key, text in read.queries.items()
    ]
    return RetrievalTask(
        pl.DataFrame(questions).with_columns(split=pl.lit(GENERAL)),
        pl.DataFrame({"chunk_id": list(read.corpus), "chunk_text": list(read.corpus.values())}),
    )


def portion_of(pdfs: Sequence[Path], portions: int) -> list[list[Path]]:
    """PDFs in portions of like sizes, by their names."""
    return [list(pdfs[n::portions]) for n in range(portions)]


def measure(project: Project, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each portion and arm."""
    rows: list[dict[str, Any]] = []
    arrived: dict[str, int] = {}
    champions: dict[str, str | None] = dict.fromkeys(ARMS)
    general = read_general(options.general) if options.general else None
    pdfs = sorted((options.manuals / "pdfs").glob("*.pdf"))
    for number, portion in enumerate(portion_of(pdfs, options.portions), start=1):
        project.ingest(portion)
        for key in project.warehouse.paths():
            arrived.setdefault(key, number)
        task = retrieval_task(project.warehouse)
        task = RetrievalTask(task.questions.filter(split=LABELLED), task.corpus)
        of_question = {
            question: "new" if arrived[document] == number else "earlier"
            for question, document in task.questions.select(
                "question_id", "document_id"
            ).iter_rows()
        }
        base = figures(project, None, task, of_question, general)
        for arm in ARMS:
            if number == 1 and arm != ARMS[0]:
                rows.append({**rows[-1], "arm": arm})
            else:
                row = project.train(arm, champions[arm])
                print(number, arm, row, flush=True)
                tuned = figures(project, row["version"], task, of_question, general)
                gains = {name: tuned[name] - base[name] for name in tuned}
                rows.append({"portion": number, "arm": arm, **row, "ndcg": tuned, "gain": gains})
            champions[arm] = rows[-1]["version"]
    return rows


def figures(
    project: Project,
    version: str | None,
    task: RetrievalTask,
    of_question: dict[str, str],
    general: RetrievalTask | None,
) -> dict[str, float]:
    """Mean NDCG@10 of a version, or of the base, by what the questions are about."""
    by_name: dict[str, list[float]] = {}
    for question, ndcg in project.ndcg(version, task).items():
        by_name.setdefault(of_question[question], []).append(ndcg)
    if general is not None:
        by_name[GENERAL] = list(project.ndcg(version, general).values())
    return {name: statistics.fmean(values) for name, values in by_name.items()}


def report(rows: Sequence[dict[str, Any]]) -> None:
    print("| portion | from | pairs | steps, s | asset, s | new | earlier | general |")
    print("| ---: | --- | ---: | ---: | ---: | --- | --- | --- |")
    for row in rows:
        cells = [
            f"{row['ndcg'][name]:.4f} ({row['gain'][name]:+.4f})" if name in row["ndcg"] else ""
            for name in ("new", "earlier", GENERAL)
        ]
        source = f"version {row['trained_from']}" if row["trained_from"] else "base"
        times = f"{row['seconds']:.1f} | {row['all_seconds']:.1f}"
        print(f"| {row['portion']} | {source} | {row['pairs']} | {times} | {' | '.join(cells)} |")
    later = [row for row in rows if row["portion"] > 1]
    base, champion = ([row for row in later if row["arm"] == arm] for arm in ARMS)
    for name in ("seconds", "all_seconds"):
        ratio = sum(row[name] for row in champion) / sum(row[name] for row in base)
        print(f"From the second portion on, {name}: champion / base = {ratio:.2f}")
    for name in base[-1]["gain"]:
        mean = [statistics.fmean(row["gain"][name] for row in arm) for arm in (base, champion)]
        print(f"Mean change against the base model, {name}: {mean[0]:+.4f} and {mean[1]:+.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--manuals", type=Path, required=True, help="pdfs/ and questions.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is written")
    parser.add_argument(
        "--general", type=Path, help="BEIR folder; else data/general, if it is there"
    )
    parser.add_argument("--portions", type=int, default=4)
    parser.add_argument("--max-pairs", type=int, help="as by default if not given")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--merge", help="as by default if not given")
    parser.add_argument("--replay", type=float, default=start.REPLAY_SHARE, help="old per new pair")
    parser.add_argument("--least-replay", type=int, default=start.LEAST_REPLAY)
    options = parser.parse_args()
    start.REPLAY_SHARE, start.LEAST_REPLAY = options.replay, options.least_replay
    work = options.work.resolve()
    (work / "pdfs").mkdir(parents=True, exist_ok=True)
    settings = Settings(
        pdfs=work / "pdfs",
        home=work / "home",
        labelled=str(options.manuals.resolve() / "questions.jsonl"),
        max_pairs=options.max_pairs,
        epochs=options.epochs,
        merge=options.merge,
    )
    if settings.home.exists():
        parser.error(f"{settings.home} is there already: give a new --work")
    here = settings.general_folder
    if options.general is None and here is not None and here.is_dir():
        options.general = here
    rows = measure(Project(settings), options)
    report(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
