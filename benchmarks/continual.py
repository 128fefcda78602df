"""Retraining from the base or on from the champion, as manuals arrive in portions.

    python benchmarks/continual.py --manuals DIR --work DIR [--general BEIR_FOLDER]
        [--arms base champion champion,replay=0] [--max-pairs N] [--epochs N]

DIR of --manuals holds `pdfs/` and people's `questions.jsonl`, which test. A quarter of the PDFs
arrives at a time. After each portion the asset finetuned_model trains once for each arm. An arm is
what EMBED_ASSETS_RETRAIN_FROM says, and more settings of the training, as NAME=VALUE; `replay` is
the number of old pairs for each new one, without a least number of them. The champion that an arm
may go on from is the arm's last version, whatever a comparison would say. Arms that differ in
nothing else share the first training. All of it is in one home in --work, which has to be new.

Prints, for each training, its pairs, the seconds of its steps, the processor seconds of the whole
asset, and NDCG@10 at full size with its change against the base model: on the questions about the
portion that has just arrived, on those about the portions before it, and on a general set. The
corpus is all chunks that are there by then, so only the changes compare across portions. The last
line is all of it as JSON.
"""

import argparse
import json
import os
import resource
import shutil
import statistics
from collections.abc import Mapping, Sequence
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
from embed_assets.models.registry import Decision, make_champion, newest_model, trained_version
from embed_assets.pairs.splits import LABELLED
from embed_assets.resources.tracking import Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training import start

NEW, EARLIER, GENERAL = "new", "earlier", "general"
DEFAULTS = (start.REPLAY_SHARE, start.LEAST_REPLAY)
Figures = dict[str, float]


@dataclass(frozen=True)
class Project:
    """A home in which all arms train. settings: what they have in common."""

    settings: Settings

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse.of(self.settings)

    @property
    def tracking(self) -> Tracking:
        return build_resources(self.settings)["tracking"]

    def ingest(self, pdfs: Sequence[Path]) -> None:
        for pdf in pdfs:
            shutil.copy(pdf, Path(str(self.settings.pdfs)) / pdf.name)
        bring_up_to_date(self.settings, train=False)
        self.make("training_pairs", {})

    def train(self, arm: str, champion: str | None) -> dict[str, Any]:
        """Train a version, which may go on from another; gives what it took."""
        if champion is not None:
            make_champion(self.tracking, champion, Decision("benchmark", arm))
        options = options_of(arm)
        replay = options.pop("replay", None)
        start.REPLAY_SHARE, start.LEAST_REPLAY = DEFAULTS if replay is None else (float(replay), 1)
        before = processor_seconds()
        self.make("finetuned_model", options)
        taken = processor_seconds() - before
        model = newest_model(self.warehouse)
        metrics = self.tracking.client().get_run(model["mlflow_run_id"]).data.metrics
        return {
            "version": model["version"],
            "trained_from": model["trained_from"],
            "pairs": int(metrics["result/pairs"]),
            "seconds": metrics["result/seconds"],
            "processor_seconds": round(taken, 1),
        }

    def make(self, asset: str, options: Mapping[str, str]) -> None:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        config = {"ops": {asset: {"config": dict(options)}}} if options else {}
        with dg.DagsterInstance.get() as instance:
            build_definitions(self.settings).resolve_job_def(TRAIN).execute_in_process(
                instance=instance, asset_selection=[dg.AssetKey(asset)], run_config=quiet | config
            )

    def card(self, version: str | None) -> ModelCard:
        """Of a version, or of the base model."""
        if version is None:
            return model_card(self.settings)
        return trained_version(newest_model(self.warehouse, version)).card

    def ndcg(self, version: str | None, task: RetrievalTask) -> Figures:
        """NDCG@10 of each question of a task."""
        encoder = CachedEncoder(self.warehouse, self.card(version), self.settings)
        found = score_encoder(task, encoder).queries
        return dict(found.select("question_id", "ndcg_at_10").iter_rows())


def options_of(arm: str) -> dict[str, str]:
    """Settings of an arm by name."""
    retrain_from, *others = arm.split(",")
    return {"retrain_from": retrain_from, **dict(other.split("=") for other in others)}


def shared_by(arm: str) -> tuple[tuple[str, str], ...]:
    """What decides an arm's first training, which starts from the base and replays nothing."""
    return tuple((k, v) for k, v in options_of(arm).items() if k not in ("retrain_from", "replay"))


def processor_seconds() -> float:
    """Of this process and of those that it has waited for."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


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


@dataclass(frozen=True, eq=False)
class Test:
    """What models are asked after a portion. about: NEW or EARLIER, by question."""

    task: RetrievalTask
    about: Mapping[str, str]
    general: RetrievalTask | None

    def score(self, project: Project, version: str | None) -> Figures:
        """Mean NDCG@10 of a version, or of the base, by what the questions are about."""
        values: dict[str, list[float]] = {}
        for question, ndcg in project.ndcg(version, self.task).items():
            values.setdefault(self.about[question], []).append(ndcg)
        if self.general is not None:
            values[GENERAL] = list(project.ndcg(version, self.general).values())
        return {name: statistics.fmean(found) for name, found in values.items()}


def make_test(
    project: Project, arrived: Mapping[str, int], portion: int, general: RetrievalTask | None
) -> Test:
    """People's questions on all that is there. arrived: portion of each document."""
    whole = retrieval_task(project.warehouse)
    questions = whole.questions.filter(split=LABELLED)
    about = {
        question: NEW if arrived[document] == portion else EARLIER
        for question, document in questions.select("question_id", "document_id").iter_rows()
    }
    return Test(RetrievalTask(questions, whole.corpus), about, general)


def measure(project: Project, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each portion and arm."""
    rows: list[dict[str, Any]] = []
    arrived: dict[str, int] = {}
    last: dict[str, dict[str, Any]] = {}
    general = read_general(options.general) if options.general else None
    pdfs = sorted((options.manuals / "pdfs").glob("*.pdf"))
    for portion in range(1, options.portions + 1):
        project.ingest(pdfs[portion - 1 :: options.portions])
        for key in project.warehouse.paths():
            arrived.setdefault(key, portion)
        test = make_test(project, arrived, portion, general)
        base = test.score(project, None)
        first: dict[object, dict[str, Any]] = {}
        for arm in options.arms:
            shared = first.get(shared_by(arm)) if portion == 1 else None
            if shared is None:
                row = project.train(arm, last[arm]["version"] if last else None)
                tuned = test.score(project, row["version"])
                row |= {"ndcg": tuned, "change": {name: tuned[name] - base[name] for name in base}}
                shared = first[shared_by(arm)] = row
            rows.append({"portion": portion, "arm": arm, **shared})
            print(json.dumps(rows[-1]), flush=True)
        last = {row["arm"]: row for row in rows if row["portion"] == portion}
    return rows


def report(rows: Sequence[dict[str, Any]]) -> None:
    """Print the table, and what the arms gain and cost from the second portion on."""
    print("\n| portion | arm | pairs | steps, s | processor, s | new | earlier | general |")
    print("| ---: | --- | ---: | ---: | ---: | --- | --- | --- |")
    for row in rows:
        cells = [
            f"{row['ndcg'][name]:.4f} ({row['change'][name]:+.4f})" if name in row["ndcg"] else ""
            for name in (NEW, EARLIER, GENERAL)
        ]
        times = f"{row['seconds']:.1f} | {row['processor_seconds']:.1f}"
        print(
            f"| {row['portion']} | {row['arm']} | {row['pairs']} | {times} | {' | '.join(cells)} |"
        )
    later = [row for row in rows if row["portion"] > 1]
    arms = {row["arm"]: [r for r in later if r["arm"] == row["arm"]] for row in later}
    reference = next(iter(arms.values()))
    print("\nFrom the second portion on: costs as shares of the first arm's, mean changes.\n")
    print("| arm | pairs | steps, s | processor, s | new | earlier | general |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for arm, own in arms.items():
        costs = [
            f"{sum(row[name] for row in own) / sum(row[name] for row in reference):.2f}"
            for name in ("pairs", "seconds", "processor_seconds")
        ]
        means = [
            f"{statistics.fmean(row['change'][name] for row in own):+.4f}"
            for name in (NEW, EARLIER, GENERAL)
            if name in own[-1]["change"]
        ]
        print(f"| {arm} | {' | '.join([*costs, *means])} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--manuals", type=Path, required=True, help="pdfs/ and questions.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="folder for what is written")
    parser.add_argument("--general", type=Path, help="BEIR folder; else data/general")
    parser.add_argument("--arms", nargs="+", default=["base", "champion"])
    parser.add_argument("--portions", type=int, default=4)
    parser.add_argument("--max-pairs", type=int, help="as by default if not given; 0: all")
    parser.add_argument("--epochs", type=int, default=2)
    options = parser.parse_args()
    work = options.work.resolve()
    settings = Settings(
        pdfs=work / "pdfs",
        home=work / "home",
        labelled=str(options.manuals.resolve() / "questions.jsonl"),
        max_pairs=options.max_pairs,
        epochs=options.epochs,
    )
    if settings.home.exists():
        parser.error(f"{settings.home} is there already: give a new --work")
    (work / "pdfs").mkdir(parents=True, exist_ok=True)
    here = settings.general_folder
    if options.general is None and here is not None and here.is_dir():
        options.general = here
    rows = measure(Project(settings), options)
    report(rows)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
