"""What does each filter of questions do to retrieval? Trains on what it leaves, and says.

Prints one JSON line per training: how many questions were dropped, and NDCG@10 on untouched test
questions, with the change against training on all of them, paired by question, and its standard
error.

    python benchmarks/question_filters.py --set ohr_law --data /data/ir

`ohr_law` is a BEIR-style folder of contract pages, `manuals` a folder of PDFs with questions.jsonl;
a language model wrote the questions of both. Pages are cut by this project's chunker into what the
model reads; a question belongs to the chunk that holds its evidence. A page's hash puts all its
questions on one side, training or test. The corpus is every chunk that answers a question.

Questions of a benchmark are cleaner than a model's raw output. So each filter is tried twice: on
the questions as they are (`real`), and after dirt has been mixed in (`injected`), a quarter each:

- reworded: a training question again, begun otherwise, of the same chunk;
- pointing: `What does this section say about X?` and the like, half of them without an X;
- wrong: a question of another chunk, which the training doesn't have. The filter `unanswerable`
  is told which they are, as if the model that writes questions saw through each: at its best;
- quoted: a sentence of the chunk.

An arm is filters joined by +, `none`, or `random:N` (N questions dropped by chance, or as many as
an arm named instead of N drops): what a filter does beyond making the training shorter.
"""

import argparse
import functools
import hashlib
import itertools
import json
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import polars as pl

from embed_assets.documents.chunking import chunk_markdown
from embed_assets.evaluation.retrieval import evaluate
from embed_assets.models.card import model_card, model_source
from embed_assets.models.encoder import load_model
from embed_assets.pairs.splits import position
from embed_assets.questions.extractive.passages import read_passage
from embed_assets.questions.filters.each import filter_each
from embed_assets.questions.filters.together import filter_together
from embed_assets.questions.labelled.matching import match_evidence, read_documents
from embed_assets.questions.statuses import KEPT
from embed_assets.settings import Settings
from embed_assets.training.batches import Place, group_pairs

DIMENSIONS = (384, 256, 128, 64)
SCORED = (384, 128, 64)
Row = dict[str, Any]
FILTERS = ("unanswerable", "pointing", "verbatim", "duplicates+near_duplicates", "round_trip")
EVERY_FILTER = "+".join(FILTERS)


def read_law(folder: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Pages by id, and questions with page and evidence."""
    pages = {row["_id"]: row["text"] for row in read_lines(folder / "corpus.jsonl")}
    judged = pl.read_csv(folder / "qrels.tsv", separator="\t", infer_schema=False)
    page_of = dict(judged.select("query-id", "corpus-id").iter_rows())
    questions = [
        {
            "question_id": row["_id"],
            "question": row["text"],
            "page": page_of[row["_id"]],
            "evidence": row["metadata"]["evidence_context"],
        }
        for row in read_lines(folder / "queries.jsonl")
    ]
    return pages, questions


def read_manuals(folder: Path) -> tuple[dict[str, str], list[dict[str, str]]]:
    """Pages by id, and questions with page and evidence."""
    import pymupdf

    rows = list(read_lines(folder / "questions.jsonl"))
    pages = {}
    for name in sorted({row["file_name"] for row in rows}):
        with pymupdf.open(folder / "pdfs" / name) as document:
            wanted = {row["page"] for row in rows if row["file_name"] == name}
            pages |= {f"{name}#{page}": document[page - 1].get_text() for page in wanted}
    questions = [
        {
            "question_id": row["question_id"],
            "question": row["question"],
            "page": f"{row['file_name']}#{row['page']}",
            "evidence": row["evidence_text"],
        }
        for row in rows
    ]
    return pages, questions


READERS = {"ohr_law": read_law, "manuals": read_manuals}


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def place_in_chunks(
    pages: dict[str, str], questions: list[dict[str, str]], count_tokens: Any, limit: int
) -> tuple[dict[str, str], pl.DataFrame]:
    """Chunks by id, and the questions whose evidence one holds, as rows that the filters take."""
    texts: dict[str, str] = {}
    rows = []
    for page, asked in group_by_page(questions).items():
        chunks = list(chunk_markdown([(1, pages[page])], count_tokens, limit))
        if not chunks:
            continue
        frame = pl.DataFrame(chunks).with_columns(document_id=pl.lit(page))
        [(_, document)] = read_documents(frame)
        for question in asked:
            if matched := match_evidence(document, None, question["evidence"]).chunk_ids:
                texts |= {
                    c["chunk_id"]: c["chunk_text"] for c in chunks if c["chunk_id"] in matched
                }
                rows.append(
                    {
                        "question_id": question["question_id"],
                        "question": question["question"],
                        "page": page,
                        "chunk_id": matched[0],
                        "relevant_chunk_ids": list(matched),
                        "kind": "question",
                        "purpose": "train",
                        "generator": "a language model",
                        "answerable": True,
                        "status": KEPT,
                        "may_train": True,
                        "turn": 1,
                        "origin": "real",
                    }
                )
    return texts, pl.DataFrame(rows)


def group_by_page(questions: list[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for question in questions:
        found.setdefault(question["page"], []).append(question)
    return found


def inject(
    training: pl.DataFrame, spare: list[str], texts: dict[str, str], share: float, seed: int
) -> pl.DataFrame:
    """The questions with dirt among them, `share` of the whole; origin says which is what.

    spare: questions of other chunks, which the training doesn't have.
    """
    chance = random.Random(seed)
    rows = training.to_dicts()
    per_kind = round(len(rows) * share / (1 - share) / len(DIRT))
    spoilt = []
    for origin, make in DIRT.items():
        for row in itertools.islice(
            filter(None, spoil(make, rows, spare, texts, chance)), per_kind
        ):
            row_id = f"{chance.getrandbits(64):016x}"
            spoilt.append(row | {"origin": origin, "question_id": row_id})
    return pl.DataFrame(rows + spoilt, schema=training.schema)


def spoil(
    make: Callable[..., Row], rows: list[Row], spare: list[str], texts: dict[str, str], chance: Any
) -> Iterator[Row]:
    """Rows, one of each chunk at random, with another question; empty where none can be made."""
    for row in chance.sample(rows, len(rows)):
        change = make(row["question"], texts[row["chunk_id"]], spare, chance)
        yield row | change if change else {}


def reword(question: str, text: str, spare: list[str], chance: random.Random) -> Row:
    if chance.random() < 0.5:
        return {"question": question.rstrip("?") + chance.choice(["", " exactly?", ", please?"])}
    start = chance.choice(["Please tell me: ", "Can you say ", "I'd like to know: "])
    return {"question": start + question[0].lower() + question[1:]}


def point(question: str, text: str, spare: list[str], chance: random.Random) -> Row:
    terms = [term for term in read_passage("", text, None).terms if len(term) > 6]
    if terms and chance.random() < 0.5:
        return {"question": chance.choice(POINTING_ABOUT).format(chance.choice(terms))}
    return {"question": chance.choice(POINTING)}


def mistake(question: str, text: str, spare: list[str], chance: random.Random) -> Row:
    return {"question": spare.pop(), "answerable": False}


def quote(question: str, text: str, spare: list[str], chance: random.Random) -> Row:
    sentences = read_passage("", text, None).sentences
    long = [sentence for sentence in sentences if 8 <= len(sentence.split()) <= 30]
    return {"question": chance.choice(long)} if long else {}


POINTING = (
    "What is the main topic of this section?",
    "What is described in the passage?",
    "What does the document state?",
    "Who is mentioned in the text?",
    "What happens according to the text?",
    "Which details are given above?",
)
POINTING_ABOUT = (
    "What does this section say about {}?",
    "According to the text, what is {}?",
    "What is mentioned in the document about {}?",
    "What does the passage state about {}?",
)
DIRT = {"reworded": reword, "pointing": point, "wrong": mistake, "quoted": quote}


def train(places: Sequence[Place], texts: Mapping[str, str], options: argparse.Namespace) -> Any:
    """The base model after an epoch, with the loss, the batches and the schedule of the trainer.

    places: of the pairs. texts: of the chunks, by id.
    """
    import torch
    from sentence_transformers.sentence_transformer.losses import (
        MatryoshkaLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers import get_cosine_schedule_with_warmup

    torch.manual_seed(options.seed)
    model = base_model(options)
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), list(DIMENSIONS))
    batches = group_pairs(places, options.batch_size, options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr, weight_decay=0)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(0.1 * len(batches)), len(batches))
    model.train()
    for batch in batches:
        pairs = [places[i] for i in batch]
        columns = ([p.anchor for p in pairs], [texts[p.positive] for p in pairs])
        loss([model.preprocess(texts) for texts in columns], torch.empty(0)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return model.eval()


def base_model(options: argparse.Namespace) -> Any:
    model = load_model(model_source(options.model))
    model.max_seq_length = options.max_length
    return model


def score(
    queries: np.ndarray, corpus: np.ndarray, test: pl.DataFrame, chunk_ids: list[str]
) -> dict[int, np.ndarray]:
    """NDCG@10 of each test question, by dimension."""
    ids = test["question_id"].to_list()
    relevant = dict(zip(ids, map(set, test["relevant_chunk_ids"].to_list()), strict=True))
    found = evaluate(queries, corpus, ids, chunk_ids, relevant, SCORED).queries
    return {d: found.filter(dimension=d)["ndcg_at_10"].to_numpy() for d in SCORED}


def without_random(questions: pl.DataFrame, dropped: int, seed: int) -> pl.DataFrame:
    return questions.sample(questions.height - dropped, seed=seed)


class Benchmark:
    """One set, read and encoded by the base model once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        count_tokens = model_card(Settings(model=options.model)).count_tokens
        pages, asked = READERS[options.set](options.data / options.set)
        self.texts, questions = place_in_chunks(pages, asked, count_tokens, options.max_length)
        trains = pl.col("page").map_elements(position, pl.Float64) < options.training_share
        # In the order of a hash, so that a limit takes a random part, and the same one each time.
        by_hash = pl.col("question_id").map_elements(position, pl.Float64)
        pool = questions.filter(trains).sort(by_hash)
        self.training = pool.head(options.pairs)
        self.spare = (
            pool.slice(options.pairs)
            .join(self.training, "chunk_id", how="anti", maintain_order="left")["question"]
            .to_list()
        )
        self.test = questions.filter(~trains)
        answering = pl.concat([self.training, self.test])["relevant_chunk_ids"].explode()
        self.chunk_ids = sorted(answering.unique())
        self.corpus = [self.texts[chunk_id] for chunk_id in self.chunk_ids]
        self.base = base_model(options)
        self.encode = functools.cache(self._encode)
        self.chunk_embeddings = self.encode(tuple(self.corpus))
        print(
            json.dumps(
                {
                    "asked": len(asked),
                    "evidence found": questions.height,
                    "training": self.training.height,
                    "test": self.test.height,
                    "corpus": len(self.corpus),
                }
            ),
            flush=True,
        )

    def _encode(self, texts: tuple[str, ...]) -> np.ndarray:
        """By the base model; kept on disk from one call of this program to the next."""
        state = hashlib.md5(repr((texts, self.options.model, self.options.max_length)).encode())
        path = self.options.cache / f"{state.hexdigest()}.npy"
        if not path.exists():
            np.save(path, self.base.encode(list(texts), batch_size=32))
        return np.load(path)

    def base_scores(self) -> dict[int, np.ndarray]:
        queries = self.encode(tuple(self.test["question"]))
        return score(queries, self.chunk_embeddings, self.test, self.chunk_ids)

    def tuned_scores(self, questions: pl.DataFrame) -> dict[int, np.ndarray]:
        columns = questions.select("question", "chunk_id", "relevant_chunk_ids")
        places = [
            Place(
                anchor=question,
                positive=chunk_id,
                shown=frozenset([chunk_id]),
                related=frozenset([chunk_id, *relevant]),
                length=len(self.texts[chunk_id]),
            )
            for question, chunk_id, relevant in columns.iter_rows()
        ]
        model = train(places, self.texts, self.options)
        queries = model.encode(self.test["question"].to_list(), batch_size=32)
        return score(queries, model.encode(self.corpus, batch_size=32), self.test, self.chunk_ids)

    def kept(self, questions: pl.DataFrame, arm: str) -> pl.DataFrame:
        """The questions that an arm leaves."""
        if arm.startswith("random:"):
            of = arm.removeprefix("random:")
            number = int(of) if of.isdigit() else questions.height - self.kept(questions, of).height
            return without_random(questions, number, self.options.seed)
        enabled = set() if arm == "none" else set(arm.replace("every", EVERY_FILTER).split("+"))
        judged = filter_together(
            filter_each(questions, self.texts, enabled),
            enabled,
            lambda texts: self.encode(tuple(texts)),
            lambda ids: self.chunk_embeddings[[self.chunk_ids.index(key) for key in ids]],
        )
        return judged.filter(status=KEPT)


def compare(
    scores: dict[int, np.ndarray], reference: dict[int, np.ndarray], name: str
) -> dict[str, float]:
    """Mean NDCG@10, its change against a reference and the standard error, by dimension."""
    figures = {}
    for dimension, values in scores.items():
        change = values - reference[dimension]
        figures[f"ndcg_{dimension}"] = round(float(values.mean()), 4)
        figures[f"{name}_{dimension}"] = round(float(change.mean()), 4)
        figures[f"error_{dimension}"] = round(float(change.std(ddof=1) / len(change) ** 0.5), 4)
    return figures


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder that holds the set")
    parser.add_argument("--set", choices=list(READERS), default="ohr_law")
    parser.add_argument("--questions", choices=["real", "injected"], default="injected")
    parser.add_argument(
        "--arms",
        nargs="+",
        default=["none", *FILTERS, "every", "random:round_trip", "random:every"],
    )
    parser.add_argument("--dirt", type=float, default=0.3, help="share of the injected questions")
    parser.add_argument("--training-share", type=float, default=0.6, help="of the pages")
    parser.add_argument("--pairs", type=int, default=360, help="at most so many real questions")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--dry-run", action="store_true", help="count what is dropped, don't train")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "question_filters"
    )
    return parser.parse_args()


def main() -> None:
    import torch

    options = parse_arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.cache.mkdir(parents=True, exist_ok=True)
    benchmark = Benchmark(options)
    base = benchmark.base_scores()
    print(json.dumps({"arm": "base, untrained", **compare(base, base, "change")}), flush=True)
    questions = benchmark.training
    if options.questions == "injected":
        questions = inject(questions, benchmark.spare, benchmark.texts, options.dirt, options.seed)
    reference = None
    for arm in options.arms:
        start = time.perf_counter()
        kept = benchmark.kept(questions, arm)
        gone = questions.join(kept, "question_id", how="anti")["origin"].value_counts()
        run = {
            "set": options.set,
            "questions": options.questions,
            "arm": arm,
            "pairs": kept.height,
            "dropped": dict(gone.sort("origin").iter_rows()),
            "seed": options.seed,
        }
        if not options.dry_run:
            tuned = benchmark.tuned_scores(kept)
            reference = reference or tuned
            run |= compare(tuned, reference, "change")
            name = f"{options.set}-{options.questions}-{arm}-{options.seed}".replace(":", "_")
            arrays = {str(d): values for d, values in tuned.items()}
            np.savez(options.cache / name, allow_pickle=False, **arrays)
        print(json.dumps(run | {"seconds": round(time.perf_counter() - start)}), flush=True)


if __name__ == "__main__":
    main()
