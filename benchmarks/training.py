"""What each way of training does to retrieval, beside the published recipe, on the same pairs.

    python benchmarks/training.py --set manuals=HOME papers=HOME ohr_law=BEIR_FOLDER \
        --arms recipe default learning_rate=6e-5 method=lora,epochs=3 --out results.jsonl

A set is the home of a folder that `embed-assets run` has seen, with people's questions to test by,
or a BEIR folder whose ids are DOCUMENT#PAGE: the documents' hashes decide, half trains, a tenth
validates, the rest tests. Every arm gets the same pairs, corpus and base model. An arm is `recipe`
(Phil Schmid's arguments), `notebook` (the later Databricks notebook's), `default`, or settings of
this project: `NAME=VALUE,…`. Ours chooses its epoch on validation questions; the recipe, as
published, on the questions that test.

Prints a JSON line for each set and arm: pairs/s of training alone, seconds of scoring the test
questions once at all dimensions, NDCG@10 by dimension, and its change against the base with the
95 % interval of a bootstrap over documents. Lines that are in --out already are not made again.
`--report` prints the table of what --out holds.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import polars as pl
from recipe import BLOG, NOTEBOOK, evaluate_recipe, train_recipe

from embed_assets.comparison.significance import compare_models
from embed_assets.evaluation.retrieval import evaluate
from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.pairs.splits import position
from embed_assets.resources.encoder import Encoder, ModelCard, load_model, model_card
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets.training.adapter import fit_adapter
from embed_assets.training.preparation import prepare, select_pairs, training_config
from embed_assets.training.progress import Silent
from embed_assets.training.trainer import train

RECIPES = {"recipe": BLOG, "notebook": NOTEBOOK}
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Pairs to train on, questions to choose and to test by, and the chunks that are searched."""

    name: str
    warehouse: Warehouse
    pairs: pl.DataFrame
    task: RetrievalTask
    documents: dict[str, str]

    @property
    def test(self) -> RetrievalTask:
        return replace(self.task, questions=self.task.questions.filter(split="test_labelled"))


def read_set(name: str, source: Path, options: argparse.Namespace, scratch: Path) -> TrainingSet:
    if (source / "warehouse.duckdb").is_file():
        warehouse = Warehouse(path=str(source / "warehouse.duckdb"))
    else:
        warehouse = Warehouse(path=str(scratch / f"{name}.duckdb"))
        fill_from_beir(warehouse, source)
    rows = warehouse.read(
        "SELECT question_id, anchor, positive, global_chunk_id, relevant_chunk_ids, document_id, "
        "split FROM training_pairs ORDER BY question_id"
    )
    pairs = select_pairs(rows.filter(split="train"), options.pairs)
    validation = rows.filter(split="validation").head(options.validation)
    test = rows.filter(split="test_labelled").head(options.questions or rows.height)
    questions = pl.concat([validation, test])
    answering = set(questions["relevant_chunk_ids"].explode())
    corpus = warehouse.corpus().sort(~pl.col("chunk_id").is_in(list(answering)), "chunk_id")
    task = RetrievalTask(
        questions.select("question_id", "anchor", "relevant_chunk_ids", "split"),
        corpus.head(max(options.chunks, len(answering)) if options.chunks else corpus.height),
    )
    documents = dict(questions.select("question_id", "document_id").iter_rows())
    return TrainingSet(name, warehouse, pairs, task, documents)


def fill_from_beir(warehouse: Warehouse, folder: Path) -> None:
    """The tables that a training reads, from pages and their questions."""
    pages = [json.loads(line) for line in (folder / "corpus.jsonl").open()]
    texts = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in pages}
    queries = [json.loads(line) for line in (folder / "queries.jsonl").open()]
    asked = {row["_id"]: row["text"] for row in queries}
    judged = pl.read_csv(folder / "qrels.tsv", separator="\t", infer_schema=False)
    chunks = [
        {
            "document_id": document_of(page),
            "chunk_index": number,
            "chunk_id": page,
            "chunk_text": text,
            "heading_path": "",
            "page_start": 1,
            "page_end": 1,
            "token_count": 1,
            "file_name": page,
        }
        for number, (page, text) in enumerate(texts.items())
    ]
    warehouse.replace("chunks", pl.DataFrame(chunks, schema=TABLES["chunks"].schema))
    pairs = [
        {
            "question_id": question,
            "anchor": asked[question],
            "positive": texts[page],
            "global_chunk_id": page,
            "relevant_chunk_ids": [page],
            "document_id": document_of(page),
            "split": side_of(document_of(page)),
        }
        for question, page in judged.select("query-id", "corpus-id").iter_rows()
    ]
    frame = pl.DataFrame(pairs, schema=TABLES["training_pairs"].schema)
    warehouse.replace("training_pairs", frame)


def document_of(page: str) -> str:
    return page.rpartition("#")[0] or page


def side_of(document: str) -> str:
    place = position(document)
    return "train" if place < 0.5 else "validation" if place < 0.6 else "test_labelled"


def scored(
    encoder: Encoder, task: RetrievalTask, dimensions: tuple[int, ...]
) -> tuple[pl.DataFrame, float]:
    """NDCG@10 of each test question by dimension, and the seconds that it took."""
    start = time.perf_counter()
    found = evaluate(
        encoder.encode_queries(list(task.queries.values())),
        encoder.encode_documents(list(task.texts.values())),
        list(task.queries),
        list(task.texts),
        task.relevant,
        dimensions,
    )
    return found.queries.select("dimension", "question_id", "ndcg_at_10"), round(
        time.perf_counter() - start, 1
    )


def train_ours(
    arm: str, chosen: TrainingSet, options: argparse.Namespace, folder: Path
) -> tuple[str, Figures]:
    """Where the trained model is, and what the training says."""
    given = {} if arm == "default" else dict(part.split("=") for part in arm.split(","))
    settings = Settings.model_validate(
        {"model": options.model, "epochs": options.epochs, "home": folder} | given
    )
    card = limited(model_card(settings), options.tokens)
    config = training_config(folder, settings, card, "", "")
    prepare(folder, chosen.warehouse, settings, card, chosen.pairs, chosen.task)
    result = (fit_adapter if config.method == "adapter" else train)(config, Silent())
    kept = ("pairs", "steps", "pairs_per_second", "best_epoch", "tuned_share")
    return str(config.model), {name: result[name] for name in kept}


def train_as_published(
    arm: str, chosen: TrainingSet, options: argparse.Namespace, folder: Path
) -> tuple[str, Figures]:
    """The same of the recipe; its own evaluation is timed on the test questions."""
    test, card = chosen.test, model_card(Settings(model=options.model))
    result = train_recipe(
        short_model(card, options.tokens, folder / "base"),
        list(chosen.pairs.select("anchor", "positive").iter_rows()),
        test.queries,
        test.texts,
        test.relevant,
        options.dimensions,
        epochs=options.recipe_epochs,
        folder=folder,
        variant=RECIPES[arm],
    )
    return str(folder / "model"), {
        "pairs": chosen.pairs.height,
        "pairs_per_second": round(result.pairs_per_second, 3),
        "best_epoch": result.best_epoch,
        "their_scoring_seconds": round(min(result.validation_seconds), 1),
    }


def limited(card: ModelCard, tokens: int) -> ModelCard:
    return replace(card, token_limit=min(card.token_limit, tokens or card.token_limit))


def short_model(card: ModelCard, tokens: int, folder: Path) -> str:
    """The base model with the same length limit as ours has in this run."""
    model = load_model(card.source)
    model.max_seq_length = limited(card, tokens).token_limit
    model.save_pretrained(str(folder), create_model_card=False)
    return str(folder)


def compared(chosen: TrainingSet, base: pl.DataFrame, tuned: pl.DataFrame) -> Figures:
    both = base.rename({"ndcg_at_10": "base_ndcg_at_10"}).join(
        tuned.rename({"ndcg_at_10": "tuned_ndcg_at_10"}), on=["dimension", "question_id"]
    )
    rows = compare_models(
        both.with_columns(
            split=pl.lit("test"),
            document_id=pl.col("question_id").replace_strict(chosen.documents),
        )
    )
    return {
        str(row["dimension"]): {
            "ndcg": round(row["tuned"], 4),
            "change": round(row["difference"], 4),
            "low": round(row["low"], 4),
            "high": round(row["high"], 4),
            "verdict": row["verdict"],
        }
        for row in rows.iter_rows(named=True)
    }


def measure(chosen: TrainingSet, options: argparse.Namespace, out: Path, scratch: Path) -> None:
    settings = Settings(model=options.model)
    card = limited(model_card(settings), options.tokens)
    about = {
        "set": chosen.name,
        "pairs": chosen.pairs.height,
        "questions": chosen.test.questions.height,
        "chunks": chosen.test.corpus.height,
        "tokens": card.token_limit,
    }
    base = None
    for arm in options.arms:
        if arm in done(out, about):
            continue
        if base is None:
            base, _ = scored(Encoder(card.source, card, "fp32"), chosen.test, options.dimensions)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        run = train_as_published if arm in RECIPES else train_ours
        model, said = run(arm, chosen, options, folder)
        tuned, seconds = scored(Encoder(model, card, "fp32"), chosen.test, options.dimensions)
        if arm in RECIPES and options.time_evaluation:
            start = time.perf_counter()
            test = chosen.test
            evaluate_recipe(
                load_model(model), test.queries, test.texts, test.relevant, options.dimensions
            )
            said["their_scoring_seconds"] = round(time.perf_counter() - start, 1)
        figures = compared(chosen, base, tuned)
        line = {**about, "arm": arm, **said, "scoring_seconds": seconds, "ndcg_at_10": figures}
        with out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def done(out: Path, about: Figures) -> set[str]:
    if not out.is_file():
        return set()
    lines = map(json.loads, out.open())
    return {line["arm"] for line in lines if about.items() <= line.items()}


def report(out: Path) -> str:
    """The lines as a markdown table: what each arm does on each set."""
    lines = [json.loads(line) for line in out.open()]
    dimensions = list(lines[0]["ndcg_at_10"])
    header = ["set", "arm", "pairs/s", *(f"{d}" for d in dimensions), f"95 % at {dimensions[0]}"]
    table = [f"| {' | '.join(header)} |", "| --- | --- |" + " ---: |" * (len(header) - 2)]
    for line in lines:
        figures = line["ndcg_at_10"]
        largest = figures[dimensions[0]]
        cells = [f"{figures[d]['ndcg']:.4f} ({figures[d]['change']:+.4f})" for d in dimensions]
        interval = f"{largest['low']:+.3f} … {largest['high']:+.3f}, {largest['verdict']}"
        speed = f"{line['pairs_per_second']:.1f}"
        row = [line["set"], line["arm"], speed, *cells, interval]
        table.append(f"| {' | '.join(row)} |")
    return "\n".join(table)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", default=[], help="NAME=HOME or NAME=BEIR_FOLDER")
    parser.add_argument("--arms", nargs="+", default=["recipe", "default"])
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, added to")
    parser.add_argument("--report", action="store_true", help="print --out as a table")
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--pairs", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--validation", type=int, default=200, help="questions, at most")
    parser.add_argument("--questions", type=int, default=0, help="to test by, at most; 0: all")
    parser.add_argument("--chunks", type=int, default=0, help="searched; all that answer are")
    parser.add_argument("--tokens", type=int, default=0, help="of a text; 0: the model's own")
    parser.add_argument("--epochs", type=int, default=Settings().epochs, help="of ours")
    parser.add_argument("--recipe-epochs", type=int, default=4, help="of the recipe")
    parser.add_argument("--time-evaluation", action="store_true", help="the recipe's, once more")
    options = parser.parse_args()
    options.dimensions = (384, 256, 128, 64)
    return options


def main() -> None:
    options = parse_arguments()
    if options.report:
        print(report(options.out))
        return
    with tempfile.TemporaryDirectory() as scratch:
        for given in options.set:
            name, _, source = given.partition("=")
            chosen = read_set(name, Path(source), options, Path(scratch))
            measure(chosen, options, options.out, Path(scratch))


if __name__ == "__main__":
    main()
