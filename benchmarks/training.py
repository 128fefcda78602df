"""What each way of training does to retrieval, beside the published recipe, on the same pairs.

    python benchmarks/training.py --set manuals=HOME papers=HOME ohr_law=BEIR_FOLDER \
        --arms recipe default frozen_share=0 method=lora,epochs=3 --out results.jsonl

A set is the home of a folder that `embed-assets run` has seen, with people's questions to test by,
or a BEIR folder whose ids are DOCUMENT#PAGE: the documents' hashes decide, half trains, a tenth
validates, the rest tests. With --extractive the ids of a BEIR folder may be any: all its questions
test, and what trains and validates are extractive questions of its texts. Every arm gets the same
pairs, corpus and base model. An arm is `recipe` (Phil Schmid's arguments), `notebook` (the later
Databricks notebook's), `default`, or settings of this project: `NAME=VALUE,…`. Ours chooses its
epoch on validation questions; the recipe, as published, on the questions that test. Where `--pairs`
is given, each epoch of ours takes all of them; else what the settings say.
With --equal-updates the recipes update their weights as often as ours, after each 32 pairs, and
choose their epoch by an evaluation that encodes once: the same figures, sooner.

Prints a JSON line for each set and arm: pairs/s of training alone, seconds of scoring the test
questions once at all dimensions, NDCG@10 by dimension and of hybrid search, and its change against
the base (in hybrid search too) with the 95 % interval of a bootstrap over documents. Lines that are
in --out already are not made again.
`--shares 0.5` also scores the mix of that share of the tuned weights with the base's: give the arms
merge=1, or it is a mix of a mix.
`--report` prints the tables of what --out holds; the last is over seeds: the arm `seed=1` is
`default` with another seed, as `epochs=4,seed=1` is `epochs=4`.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import polars as pl
from recipe import BLOG, NOTEBOOK, Variant, train_recipe
from retrieval_sets import StandIns

from embed_assets.evaluation.hybrid import score_hybrid
from embed_assets.evaluation.scoring import RetrievalTask, score_encoder
from embed_assets.evaluation.significance import compare_models
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.embeddings import CachedEncoder
from embed_assets.models.encoder import LocalEncoder, encode, load_model
from embed_assets.pairs.splits import position
from embed_assets.questions.extractive.mix import extractive_questions
from embed_assets.resources.warehouse import Warehouse, digest
from embed_assets.settings import EXTRACTIVE, Settings
from embed_assets.tables import TABLES
from embed_assets.training.adapter import fit_adapter
from embed_assets.training.config import training_config
from embed_assets.training.preparation import (
    pairs_to_train,
    prepare,
    select_pairs,
    training_input,
)
from embed_assets.training.progress import Silent
from embed_assets.training.trainer import train
from embed_assets.training.validation import ndcg_by_dimension
from embed_assets.training.weights import interpolate, put_weights, save_model

PAIRS_PER_UPDATE = 32
"""Of ours by default, and of the recipes with --equal-updates."""
RECIPES = {"recipe": BLOG, "notebook": NOTEBOOK}
Figures = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Pairs to train on, questions to choose and to test by, and the chunks that are searched."""

    name: str
    warehouse: Warehouse
    pairs: pl.DataFrame
    validation: pl.DataFrame
    task: RetrievalTask
    documents: dict[str, str]

    @property
    def test(self) -> RetrievalTask:
        return replace(self.task, questions=self.task.questions.filter(split="test_labelled"))


def read_set(name: str, source: Path, options: argparse.Namespace, scratch: Path) -> TrainingSet:
    warehouse = Warehouse(path=str(scratch / f"{name}.duckdb"))
    if (source / "warehouse.duckdb").is_file():
        if options.extractive:
            raise SystemExit(f"{source}: --extractive is for BEIR folders; a home has --kinds.")
        shutil.copyfile(source / "warehouse.duckdb", warehouse.path)
    else:
        fill_from_beir(warehouse, source, options.extractive)
    columns = ", ".join(f"p.{column}" for column in TABLES["training_pairs"].columns)
    rows = warehouse.read(
        f"SELECT {columns}, q.kind FROM training_pairs p "
        "LEFT JOIN synthetic_questions q USING (question_id) "
        "ORDER BY question_id"
    )
    if options.kinds:
        kept = pl.col("kind").is_in([*options.kinds, "labelled"]) | pl.col("kind").is_null()
        rows = rows.filter(kept)
    pairs = select_pairs(rows.filter(split="train"), options.pairs)
    if (source / "warehouse.duckdb").is_file() and pairs["generator"].has_nulls():
        raise SystemExit(f"{source}: of an older version. Run `embed-assets run` there again.")
    validation = rows.filter(split="validation").head(options.validation)
    test = rows.filter(split="test_labelled").head(options.questions or rows.height)
    questions = pl.concat([validation, test])
    answering = set(questions["relevant_chunk_ids"].explode())
    corpus = warehouse.corpus().sort(~pl.col("chunk_id").is_in(list(answering)), "chunk_id")
    searched = max(options.chunks, len(answering)) if options.chunks else corpus.height
    task = RetrievalTask(
        questions.select("question_id", "anchor", "relevant_chunk_ids", "split"),
        corpus.head(searched).sort("chunk_id"),
    )
    documents = dict(questions.select("question_id", "document_id").iter_rows())
    return TrainingSet(name, warehouse, pairs, validation, task, documents)


def fill_from_beir(warehouse: Warehouse, folder: Path, extractive: bool) -> None:
    """The tables that a training reads, from pages and their questions.

    extractive: its texts are one document's, whose questions are written here.
    """
    pages = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    texts = {row["_id"]: f"{row.get('title', '')} {row['text']}".strip() for row in pages}
    titles = {row["_id"]: row.get("title", "") for row in pages}
    queries = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    asked = {row["_id"]: row["text"] for row in queries}
    judged = pl.read_csv(folder / "qrels.tsv", separator="\t", infer_schema=False)
    chunks = [
        {
            "document_id": folder.name if extractive else document_of(page),
            "chunk_index": number,
            "chunk_id": page,
            "chunk_text": text,
            "heading_path": titles[page],
            "page_start": 1,
            "page_end": 1,
            "token_count": 1,
            "file_name": page,
        }
        for number, (page, text) in enumerate(texts.items())
    ]
    table = pl.DataFrame(chunks, schema=TABLES["chunks"].schema)
    warehouse.replace("chunks", table)
    answers: dict[str, list[str]] = {}
    for question, page, score in judged.select("query-id", "corpus-id", "score").iter_rows():
        if int(score) > 0:
            answers.setdefault(question, []).append(page)
    pairs = [
        {
            "question_id": question,
            "anchor": asked[question],
            "positive": texts[found[0]],
            "global_chunk_id": found[0],
            "relevant_chunk_ids": found,
            "document_id": document_of(found[0]),
            "generator": None,  # none of this project's
            "split": "test_labelled" if extractive else side_of(document_of(found[0])),
        }
        for question, found in answers.items()
    ]
    if extractive:
        pairs += extractive_pairs(table)
    frame = pl.DataFrame(pairs, schema=TABLES["training_pairs"].schema)
    warehouse.replace("training_pairs", frame)


def extractive_pairs(chunks: pl.DataFrame) -> list[Figures]:
    """Rows of training_pairs: nine tenths of the texts train, the others validate."""
    written = extractive_questions(chunks).join(chunks.select("chunk_id", "chunk_text"), "chunk_id")
    return [
        {
            "question_id": digest((row["chunk_id"], row["question"])),
            "anchor": row["question"],
            "positive": row["chunk_text"],
            "global_chunk_id": row["chunk_id"],
            "relevant_chunk_ids": [row["chunk_id"]],
            "document_id": row["chunk_id"],
            "generator": EXTRACTIVE,
            "split": "train" if position(row["chunk_id"]) < 0.9 else "validation",
        }
        for row in written.unique(["chunk_id", "question"]).iter_rows(named=True)
    ]


def document_of(page: str) -> str:
    return page.rpartition("#")[0] or page


def side_of(document: str) -> str:
    place = position(document)
    return "train" if place < 0.5 else "validation" if place < 0.6 else "test_labelled"


@dataclass(frozen=True, eq=False)
class Scored:
    """NDCG@10 of each test question: by dimension, and in hybrid search at the full size.

    seconds: that the first took, from the texts on.
    """

    dense: pl.DataFrame
    hybrid: pl.DataFrame
    seconds: float


def scored(
    card: ModelCard,
    task: RetrievalTask,
    dimensions: tuple[int, ...],
    embedded: Mapping[str, str] | None = None,
) -> Scored:
    """embedded: what is embedded in place of a text."""
    encoder = StandIns(embedded or {}, lambda: LocalEncoder(card, "fp32"))
    start = time.perf_counter()
    dense = score_encoder(task, encoder, dimensions)
    seconds = round(time.perf_counter() - start, 1)
    hybrid = score_hybrid(task, encoder, Settings().dense_weight)
    columns = ("dimension", "question_id", "ndcg_at_10")
    return Scored(dense.queries.select(columns), hybrid.queries.select(columns), seconds)


def settings_of(arm: str, options: argparse.Namespace) -> Settings:
    given = {} if arm == "default" else dict(part.split("=") for part in arm.split(","))
    fixed = {"model": options.model, "epochs": options.epochs}
    of_set = {"max_pairs": 0} if options.pairs else {}
    return Settings.model_validate(fixed | of_set | given)


def train_ours(
    arm: str, chosen: TrainingSet, options: argparse.Namespace, folder: Path
) -> tuple[str, Figures]:
    """Where the trained model is, and what the training says."""
    settings = settings_of(arm, options)
    card = limited(model_card(settings), options.tokens)
    config = training_config(folder, settings, card, "")
    places = chosen.warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks")
    pairs = pl.concat([chosen.pairs, chosen.validation]).with_columns(sha256=pl.lit(""))
    given = training_input(pairs, places)
    encoder = CachedEncoder(chosen.warehouse, card, settings)
    config = prepare(config, settings, encoder, given, pairs_to_train(given.pairs, settings))
    result = (fit_adapter if config.method == "adapter" else train)(config, Silent())
    kept = ("pairs", "steps", "pairs_per_second", "best_epoch", "tuned_share")
    return str(config.model), {name: result[name] for name in kept}


def train_as_published(
    arm: str, chosen: TrainingSet, options: argparse.Namespace, folder: Path
) -> tuple[str, Figures]:
    """The same of the recipe; its own evaluation is timed on the test questions."""
    test, card = chosen.test, model_card(Settings(model=options.model))
    variant = recipe_variant(arm, options)
    result = train_recipe(
        short_model(card, options.tokens, folder / "base"),
        list(chosen.pairs.select("anchor", "positive").iter_rows()),
        test.queries,
        test.texts,
        test.relevant,
        options.dimensions,
        epochs=options.recipe_epochs,
        folder=folder,
        variant=variant,
        evaluator=encoding_once(test, options.dimensions) if options.equal_updates else None,
    )
    said: Figures = {
        "steps": optimizer_steps(chosen.pairs.height, options, variant),
        "pairs_per_second": round(result.pairs_per_second, 3),
        "best_epoch": result.best_epoch,
    }
    if not options.equal_updates:
        said["their_scoring_seconds"] = round(min(result.validation_seconds), 1)
    return str(folder / "model"), said


def recipe_variant(arm: str, options: argparse.Namespace) -> Variant:
    variant = RECIPES[arm]
    if not options.equal_updates:
        return variant
    return replace(variant, gradient_accumulation=PAIRS_PER_UPDATE // variant.batch_size)


def encoding_once(task: RetrievalTask, dimensions: Sequence[int]) -> Any:
    """The recipe's evaluator, but that each text is encoded once for all dimensions."""
    from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator

    class EncodingOnce(SentenceEvaluator):
        primary_metric = f"dim_{max(dimensions)}_cosine_ndcg@10"

        def __call__(self, model: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
            questions, corpus = task.questions, task.corpus
            queries = encode(model, questions["anchor"].to_list(), "query", "", "fp32")
            documents = encode(model, corpus["chunk_text"].to_list(), "document", "", "fp32")
            found = ndcg_by_dimension(queries, documents, questions, corpus, dimensions)
            return {f"dim_{size}_cosine_ndcg@10": score for size, score in found.items()}

    return EncodingOnce()


def optimizer_steps(pairs: int, options: argparse.Namespace, variant: Variant) -> int:
    batches = -(-pairs // variant.batch_size)
    return -(-batches // variant.gradient_accumulation) * options.recipe_epochs


def limited(card: ModelCard, tokens: int) -> ModelCard:
    return replace(card, token_limit=min(card.token_limit, tokens or card.token_limit))


def short_model(card: ModelCard, tokens: int, folder: Path) -> str:
    """The base model with the same length limit as ours has in this run."""
    model = load_model(card.source, limited(card, tokens).token_limit)
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
        "model": options.model,
        "validation": options.validation,
        "kinds": "extractive" if options.extractive else "+".join(options.kinds) or "all",
        "equal_updates": options.equal_updates,
    }
    bare = replace(card, query_prompt="", document_prompt="")  # as the recipe trains
    base = None
    for arm in options.arms:
        trained = {
            "epochs": options.recipe_epochs if arm in RECIPES else options.epochs,
            # Which settings an arm means, when defaults change.
            "shape": ""
            if arm in RECIPES
            else digest(settings_of(arm, options).shape("finetuned_model")),
        }
        mixes = {} if arm in RECIPES or "adapter" in arm else shares_of(arm, options)
        if {arm, *mixes} <= done(out, about | trained):
            continue
        if base is None:
            base = scored(card, chosen.test, options.dimensions)
        folder = Path(tempfile.mkdtemp(dir=scratch))
        run = train_as_published if arm in RECIPES else train_ours
        model, said = run(arm, chosen, options, folder)
        prompts = bare if arm in RECIPES else card
        models = {arm: (model, {})}
        for name, share in mixes.items():
            models[name] = mixed(card.source, model, share, folder), {"tuned_share": share}
        for name, (path, changed) in models.items():
            if name in done(out, about | trained):
                continue
            tuned = scored(replace(prompts, source=path), chosen.test, options.dimensions)
            line = {**about, "arm": name, **trained, **said, **changed}
            line["scoring_seconds"] = tuned.seconds
            line["ndcg_at_10"] = compared(chosen, base.dense, tuned.dense)
            line["hybrid"] = compared(chosen, base.hybrid, tuned.hybrid)
            line["commit"] = commit()
            print(json.dumps(line), flush=True)
            line["by_question"] = in_order(tuned.dense)
            line["hybrid_by_question"] = in_order(tuned.hybrid)
            line["against"] = against_recipes(chosen, tuned.dense, out, about)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        shutil.rmtree(folder)


def shares_of(arm: str, options: argparse.Namespace) -> dict[str, float]:
    """Share of the tuned weights by the name of the arm that is mixed so."""
    return {f"{arm}, {share:g} of it": share for share in options.shares}


def mixed(base: str, tuned: str, share: float, folder: Path) -> str:
    """Where the model is whose weights are so much the tuned model's, the rest the base's."""
    model, new = load_model(base), load_model(tuned)
    weights = interpolate(dict(model.named_parameters()), dict(new.named_parameters()), share)
    put_weights(new, weights)
    save_model(new, folder / f"mixed-{share}", [new.get_embedding_dimension()])
    return str(folder / f"mixed-{share}")


def in_order(scores: pl.DataFrame) -> list[float]:
    return scores.sort("dimension", "question_id")["ndcg_at_10"].to_list()


def against_recipes(
    chosen: TrainingSet, tuned: pl.DataFrame, out: Path, about: Figures
) -> dict[str, Figures]:
    """The change against each recipe that was measured on this set before, by dimension."""
    found = {}
    for line in lines_of(out):
        if about.items() <= line.items() and line["arm"] in RECIPES:
            scores = pl.Series("ndcg_at_10", line["by_question"])
            recipe = tuned.sort("dimension", "question_id").with_columns(scores)
            found[line["arm"]] = compared(chosen, recipe, tuned)
    return found


def lines_of(out: Path) -> list[Figures]:
    return [json.loads(line) for line in out.open(encoding="utf-8")] if out.is_file() else []


def commit() -> str:
    """Of the code that was measured."""
    call = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    return subprocess.run(call, capture_output=True, text=True, check=False).stdout.strip()


def done(out: Path, about: Figures) -> set[str]:
    return {line["arm"] for line in lines_of(out) if about.items() <= line.items()}


def report(out: Path) -> str:
    """The lines as markdown tables: each arm beside the base, and beside the recipes."""
    lines = lines_of(out)
    dimensions = list(lines[0]["ndcg_at_10"])
    sizes = [f"{d}" for d in dimensions]
    names = ("set", "tokens", "arm")
    intervals = [f"95 % of the change {where}" for where in (f"at {sizes[0]}", "in hybrid")]
    table = rows_of(*names, "steps", "pairs/s", *sizes, "hybrid", *intervals)
    beside = rows_of(*names, "against", "pairs/s", "scoring", *sizes)
    recipe_of = {(setting_of(line), line["arm"]): line for line in lines if line["arm"] in RECIPES}
    for line in lines:
        figures = [*(line["ndcg_at_10"][d] for d in dimensions), *line["hybrid"].values()]
        cells = [f"{of['ndcg']:.4f} ({of['change']:+.4f})" for of in figures]
        speed = "–" if "adapter" in line["arm"] else f"{line['pairs_per_second']:.1f}"
        intervals = [
            f"{of['low']:+.3f} … {of['high']:+.3f}, {of['verdict']}"
            for of in (figures[0], figures[-1])
        ]
        who = [line[name] for name in names]
        table += rows_of(*who, line["steps"], speed, *cells, *intervals)[:1]
        for recipe, changes in line["against"].items():
            if line["arm"] in RECIPES or "adapter" in line["arm"]:
                continue
            theirs = recipe_of[setting_of(line), recipe]
            faster = f"{line['pairs_per_second'] / theirs['pairs_per_second']:.2f} ×"
            scoring = theirs.get("their_scoring_seconds")
            sooner = f"{scoring / line['scoring_seconds']:.1f} ×" if scoring else "–"
            cells = [
                f"{c['change']:+.4f} ({c['low']:+.3f} … {c['high']:+.3f})"
                for c in (changes[d] for d in dimensions)
            ]
            beside += rows_of(*who, recipe, faster, sooner, *cells)[:1]
    return "\n".join([*table, "", *beside, "", *over_seeds(lines, dimensions)])


def over_seeds(lines: Sequence[Figures], dimensions: Sequence[str]) -> list[str]:
    """The change of each way to train against the base: mean over its seeds, lowest, highest."""
    table = rows_of("set", "tokens", "way", "seeds", *dimensions, "hybrid")
    ways: dict[tuple[object, ...], list[Figures]] = {}
    for line in lines:
        parts = [part for part in line["arm"].split(",") if not part.startswith("seed=")]
        arm = ",".join(parts if parts[:1] and " of it" not in parts[0] else ["default", *parts])
        ways.setdefault((*setting_of(line), line["epochs"], arm), []).append(line)
    for (name, *about, arm), seeds in ways.items():
        way = (name, about[3], arm)
        cells = []
        for figures in zip(
            *([*(of["ndcg_at_10"][d] for d in dimensions), *of["hybrid"].values()] for of in seeds),
            strict=True,
        ):
            changes = [of["change"] for of in figures]
            mean = sum(changes) / len(changes)
            cells.append(f"{mean:+.4f} ({min(changes):+.3f} … {max(changes):+.3f})")
        table += rows_of(*way, len(seeds), *cells)[:1]
    return table


def setting_of(line: Figures) -> tuple[object, ...]:
    """What an arm and a recipe must have in common to be compared."""
    shared = ("set", "pairs", "questions", "chunks", "tokens", "model", "validation", "kinds")
    return *(line[name] for name in shared), line.get("equal_updates", False)


def rows_of(*cells: object) -> list[str]:
    """A row of a markdown table, and the line that goes below it where it is the first."""
    return [f"| {' | '.join(map(str, cells))} |", "| --- " * len(cells) + "|"]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", default=[], help="NAME=HOME or NAME=BEIR_FOLDER")
    parser.add_argument("--arms", nargs="+", default=["recipe", "default"])
    parser.add_argument("--shares", nargs="+", type=float, default=[], help="of tuned weights")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, added to")
    parser.add_argument("--report", action="store_true", help="print --out as a table")
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--pairs", type=int, default=0, help="at most so many; 0: all")
    parser.add_argument("--kinds", nargs="+", default=[], help="of questions, if not all")
    parser.add_argument("--extractive", action="store_true", help="train on such questions alone")
    parser.add_argument("--validation", type=int, default=200, help="questions, at most")
    parser.add_argument("--questions", type=int, default=0, help="to test by, at most; 0: all")
    parser.add_argument("--chunks", type=int, default=0, help="searched; all that answer are")
    parser.add_argument("--tokens", type=int, default=0, help="of a text; 0: the model's own")
    parser.add_argument("--epochs", type=int, default=Settings().epochs, help="of ours")
    parser.add_argument("--recipe-epochs", type=int, default=4, help="of the recipe")
    parser.add_argument("--equal-updates", action="store_true", help="the recipes as often as ours")
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
