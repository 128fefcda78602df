"""Ways to train that the project does not take: what each gives, alone and in hybrid search.

    python benchmarks/ways_to_train.py --set sample=HOME cranfield=BEIR_FOLDER --arms default \
        shared=0.5 negatives=bm25 shared=0.5,negatives=bm25 --out ways.jsonl
    python benchmarks/ways_to_train.py --out ways.jsonl --report

Sets are as in training.py; of a BEIR folder whose ids are not DOCUMENT#PAGE extractive questions
train. By default the 512 pairs of each epoch are the same. Where the project's own training takes
others in its second epoch, `--pairs 1024 --arms epochs=1` is the nearest. With --mixed a part of a
set's own questions trains beside extractive ones, and the others test. The training is the
project's (layers, rate, batches, loss at each dimension), without its validation and checkpoints,
and of a model without prompts. Each model is scored as trained, and as the mean with the base.

An arm is `default`, or some of these:

- `shared=P`: a positive loses each word that it shares with its question, with probability P, anew
  in each step: what BM25 sees is to be learned without it.
- `negatives=bm25`, `dense`, `both`: a hard negative by BM25, by the base model, or one of each.
- `residual=X`: BM25's score stands beside the cosine in the softmax, X for a question's best chunk.
  Gao et al. 2021 (CLEAR): the model learns what BM25 leaves.
- `distil=X`: so much of the loss is the divergence from a teacher, the base's cosine plus half of
  BM25's share of its best score.
- `easy=X`: weight of a pair whose chunk BM25 ranks first; others have 1.
- `distil=X,teacher=cross`: the teacher is a cross-encoder, made of the base and trained on the same
  pairs; it scores each question's own chunk and its negatives.
- `rounds=2`: the model is trained again, from the base, with negatives that the first one mines.
- `context=headings`: what is embedded of a chunk begins with its headings. BM25 reads the chunk.
- `next=P`: so many of the questions also have the chunk that follows theirs as an answer.
- `source=sentences`: a sentence asks for its chunk without it, in place of the questions.
  Lee et al. 2019 (inverse cloze task). `source=headings`: a chunk's last heading asks for it, in
  which it is left out. `source=following`: a sentence asks for the chunk before its own.
  `source=definitions`: what a chunk says of a term asks for another chunk that uses the term.
  `source=references`: a sentence that names a section, table or figure asks for it, without the
  name.
- `part=X`: so much of the pairs are of that source, the rest are questions.
- `general=P`: so much of the pairs are the questions of another set, the BEIR folder of --general.
- `hard=P`: of so many of the pairs, where there are as many, BM25 does not rank the chunk first.
- `own=N`, `extractive=N`, `times=N`: with --mixed, how many of the set's own questions train, and
  of extractive ones, and how often each of the own is there.
- `epochs=N`, `learning_rate=X`, `depth=N` (negatives of each ranking), `seed=N`.
"""

import argparse
import functools
import json
import random
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from training import (
    EXTRACTIVE,
    Figures,
    Scored,
    TrainingSet,
    commit,
    compared,
    limited,
    lines_of,
    read_set,
    rows_of,
    scored,
)

from embed_assets.evaluation.scoring import RetrievalTask
from embed_assets.lexical import LexicalIndex, share_of_words
from embed_assets.machine import this_machine
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.encoder import LocalEncoder, load_model
from embed_assets.pairs.splits import position
from embed_assets.questions.extractive.mix import extractive_questions
from embed_assets.questions.extractive.passages import split_sentences
from embed_assets.resources.warehouse import digest
from embed_assets.settings import Settings
from embed_assets.training.batches import Place, group_pairs
from embed_assets.training.config import LEARNING_RATES
from embed_assets.training.forward import forward_once
from embed_assets.training.losses import TEMPERATURE
from embed_assets.training.negatives import mine_negatives
from embed_assets.training.preparation import select_pairs, training_input, with_related
from embed_assets.training.weights import (
    freeze_lowest,
    interpolate,
    put_weights,
    save_model,
    set_dropout,
)
from embed_assets.words import split_words

DIMENSIONS = (384, 256, 128, 64)
BATCH, WARMUP = 32, 0.1
CROSS_ENCODER_RATE = 6e-5
SHARES = (1.0, 0.5)
TEACHER_OF_WORDS = 0.5
DEFAULTS: Mapping[str, Any] = {
    "shared": 0.0,
    "negatives": "",
    "residual": 0.0,
    "distil": 0.0,
    "teacher": "ensemble",
    "easy": 1.0,
    "depth": 1,
    "rounds": 1,
    "context": "",
    "next": 0.0,
    "source": "questions",
    "part": 1.0,
    "general": 0.0,
    "hard": 0.0,
    "own": 130,
    "extractive": 512,
    "times": 1,
    "epochs": Settings().epochs,
    "learning_rate": LEARNING_RATES["full"],
    "seed": 42,
}
OWN_SHARE = 0.45
"""With --mixed, of a set's own questions those that may train."""


@dataclass(frozen=True)
class Pair:
    """A pair with its hard negatives: ids of chunks, but for the positive, which may be changed."""

    anchor: str
    positive: str
    chunk_id: str
    related: frozenset[str]
    negatives: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Chunks:
    """The chunks that are trained on, and what BM25 and the base model make of them.

    headings: of every chunk that has some. following: the chunk after it in its document; of
    texts that stand alone there is none. defined: as `definitions_in` gives. asked_by_name: as
    `references_in` gives.
    """

    ids: Sequence[str]
    texts: Mapping[str, str]
    words: LexicalIndex
    base: LocalEncoder
    headings: Mapping[str, str]
    following: Mapping[str, str]
    defined: Mapping[str, Sequence[tuple[str, str]]]
    asked_by_name: Mapping[str, Sequence[str]]

    @classmethod
    def of(
        cls,
        pairs: pl.DataFrame,
        base: LocalEncoder,
        chunks: pl.DataFrame,
        others: Mapping[str, str],
    ) -> "Chunks":
        texts = {**dict(pairs.select("global_chunk_id", "positive").iter_rows()), **others}
        ids = sorted(texts)
        after = chunks.sort("document_id", "chunk_index").select(
            "chunk_id", after=pl.col("chunk_id").shift(-1).over("document_id", "file_name")
        )
        return cls(
            ids,
            texts,
            LexicalIndex.of([texts[i] for i in ids]),
            base,
            dict(
                chunks.filter(pl.col("heading_path") != "")["chunk_id", "heading_path"].iter_rows()
            ),
            {one: two for one, two in after.iter_rows() if one in texts and two in texts},
            definitions_in(chunks.filter(pl.col("chunk_id").is_in(ids))),
            references_in(chunks.filter(pl.col("chunk_id").is_in(ids))),
        )

    def in_context(self) -> "Chunks":
        return replace(self, texts={i: self.shown(i, text) for i, text in self.texts.items()})

    def shown(self, chunk_id: str, text: str) -> str:
        return "\n".join(filter(None, [self.headings.get(chunk_id), text]))

    @functools.cached_property
    def row_of(self) -> dict[str, int]:
        return {chunk_id: row for row, chunk_id in enumerate(self.ids)}

    def by_words(self, questions: Sequence[str]) -> np.ndarray:
        """BM25's scores as shares of each question's best: (questions, chunks), float32."""
        scores = np.zeros((len(questions), len(self.ids)), np.float32)
        for row, question in enumerate(questions):
            found, score = self.words.top(question, len(self.ids))
            scores[row, found] = score / score.max(initial=1e-6)
        return scores

    def found_first(self, pairs: pl.DataFrame) -> pl.Series:
        """Of each pair, whether BM25 ranks a chunk that answers it first."""
        rows = pairs.select("anchor", "relevant_chunk_ids").iter_rows()
        return pl.Series(
            [
                any(self.ids[row] in answers for row in self.words.top(anchor, 1)[0].tolist())
                for anchor, answers in rows
            ]
        )

    def by_meaning(self, questions: Sequence[str]) -> np.ndarray:
        """The base model's cosines: (questions, chunks), float32."""
        asked, chunks = (
            of / np.linalg.norm(of, axis=1, keepdims=True)
            for of in self.embedded(self.base, questions)
        )
        return asked @ chunks.T

    def embedded(
        self, encoder: LocalEncoder, questions: Sequence[str]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The questions and the chunks, float32 (questions, size) and (chunks, size)."""
        texts = [self.texts[i] for i in self.ids]
        return encoder.encode(questions, "query"), encoder.encode(texts, "document")


def arm_of(name: str, *, mixed: bool, general: bool) -> dict[str, Any]:
    """What an arm's name says. SystemExit where the options don't go with it."""
    given = {} if name == "default" else dict(part.split("=") for part in name.split(","))
    if unknown := given.keys() - DEFAULTS.keys():
        raise SystemExit(f"{name}: no arm has {', '.join(sorted(unknown))}.")
    arm = {key: type(value)(given.get(key, value)) for key, value in DEFAULTS.items()}
    if arm["general"] and (mixed or not general):
        raise SystemExit(f"{name}: --general names the set that is mixed in, without --mixed.")
    if arm["teacher"] == "cross" and not (arm["negatives"] and arm["distil"]):
        raise SystemExit(f"{name}: a cross-encoder teaches by distil=X and negatives=….")
    return arm


def mixed_set(chosen: TrainingSet) -> TrainingSet:
    """A set of which some own questions train, beside extractive ones.

    Where whole documents test, all that trains is of others. Else chunks decide, and those that
    answer a question that tests are asked about in neither way.
    """
    rows = chosen.warehouse.read("SELECT * FROM training_pairs ORDER BY question_id")
    own = rows.filter(pl.col("generator").ne_missing(EXTRACTIVE))
    if "train" in own["split"]:
        learned, tests = (own.filter(split=split) for split in ("train", "test_labelled"))
        may_train = pl.col("document_id").is_in(learned["document_id"].implode())
    else:
        trains = [position(f"own {chunk}") < OWN_SHARE for chunk in own["global_chunk_id"]]
        tests = own.filter(~pl.Series(trains)).with_columns(split=pl.lit("test_labelled"))
        may_train = ~pl.col("global_chunk_id").is_in(
            tests["relevant_chunk_ids"].explode().implode()
        )
        learned = own.filter(pl.Series(trains)).filter(may_train)
    chunks = chosen.warehouse.read("SELECT * FROM chunks")
    texts = chunks.select("chunk_id", positive="chunk_text").unique("chunk_id")
    written = extractive_questions(chunks).unique(["chunk_id", "question"])
    made = (
        written.join(texts, on="chunk_id")
        .select(
            question_id=pl.struct("chunk_id", "question").map_elements(
                lambda row: digest(tuple(row.values())), pl.String
            ),
            anchor="question",
            positive="positive",
            global_chunk_id="chunk_id",
            relevant_chunk_ids=pl.concat_list("chunk_id"),
            document_id="document_id",
            generator=pl.lit(EXTRACTIVE),
            split=pl.lit("train"),
        )
        .filter(may_train)
    )
    columns = made.columns
    return replace(
        chosen,
        name=f"{chosen.name}, mixed",
        pairs=pl.concat([learned.select(columns).with_columns(generator=pl.lit("own")), made]),
        task=RetrievalTask(
            tests.select("question_id", "anchor", "relevant_chunk_ids", "split"),
            chosen.task.corpus,
        ),
        documents=dict(tests.select("question_id", "document_id").iter_rows()),
    )


def pairs_of(
    arm: Mapping[str, Any],
    rows: pl.DataFrame,
    chunks: Chunks,
    general: Sequence[Pair],
    options: argparse.Namespace,
) -> list[Pair]:
    """What an arm trains on. rows: all pairs that train, with related_chunk_ids."""
    wanted = min(options.pairs or rows.height, rows.height)
    mixed_in = round(arm["general"] * wanted)
    count = wanted - mixed_in
    selected = at_most(rows, count)
    if arm["hard"]:
        easy = chunks.found_first(rows)
        hard = at_most(rows.filter(~easy), round(arm["hard"] * count))
        selected = pl.concat([hard, at_most(rows.filter(easy), count - hard.height)])
    if options.mixed:
        made = pl.col("generator") == EXTRACTIVE
        own = at_most(rows.filter(~made), arm["own"])
        selected = pl.concat([own] * arm["times"] + [at_most(rows.filter(made), arm["extractive"])])
    asked = [
        Pair(anchor, chunks.texts[chunk_id], chunk_id, frozenset(related))
        for anchor, chunk_id, related in selected.select(
            "anchor", "global_chunk_id", "related_chunk_ids"
        ).iter_rows()
    ]
    dice = random.Random(arm["seed"])
    if arm["source"] != "questions":
        made = round(arm["part"] * len(asked))
        asked = asked[: len(asked) - made] + made_pairs(arm["source"], rows, chunks, made, dice)
    asked += dice.sample(general, mixed_in)
    return asked + [
        replace(pair, positive=chunks.texts[after], chunk_id=after)
        for pair in asked
        if (after := chunks.following.get(pair.chunk_id)) and dice.random() < arm["next"]
    ]


def at_most(pairs: pl.DataFrame, count: int) -> pl.DataFrame:
    return select_pairs(pairs, count) if count else pairs.clear()


def made_pairs(
    source: str, rows: pl.DataFrame, chunks: Chunks, count: int, dice: random.Random
) -> list[Pair]:
    """Pairs that need no question: chunks in turn, until there are enough or none gives one."""
    given = rows.unique("global_chunk_id", maintain_order=True).rows(named=True)
    dice.shuffle(given)
    pairs: list[Pair] = []
    asked: set[str] = set()
    while len(pairs) < count:
        before = len(pairs)
        for row in given:
            of = SOURCES[source](row["global_chunk_id"], chunks, dice)
            if of and of[0] not in asked and len(pairs) < count:
                asked.add(of[0])
                pairs.append(Pair(*of, row["global_chunk_id"], frozenset(row["related_chunk_ids"])))
        if len(pairs) == before:
            break
    return pairs


def sentence_and_rest(chunk_id: str, chunks: Chunks, dice: random.Random) -> tuple[str, str] | None:
    text = chunks.texts[chunk_id]
    said = sentences_of(text)
    if len(said) < 2:
        return None
    sentence = dice.choice(said)
    return sentence, text.replace(sentence, " ")


def heading_and_rest(chunk_id: str, chunks: Chunks, dice: random.Random) -> tuple[str, str] | None:
    heading = chunks.headings.get(chunk_id, "").rpartition(" > ")[2]
    if len(heading.split()) < 2:
        return None
    return heading, chunks.texts[chunk_id].replace(heading, " ", 1)


def sentence_after(chunk_id: str, chunks: Chunks, dice: random.Random) -> tuple[str, str] | None:
    said = sentences_of(chunks.texts.get(chunks.following.get(chunk_id, ""), ""))
    return (dice.choice(said), chunks.texts[chunk_id]) if said else None


def definition_elsewhere(
    chunk_id: str, chunks: Chunks, dice: random.Random
) -> tuple[str, str] | None:
    text = chunks.texts[chunk_id]
    used = f" {' '.join(split_words(text.lower()))} "
    said = [
        explained
        for term, of_term in chunks.defined.items()
        if f" {term} " in used
        for where, explained in of_term
        if where != chunk_id and explained not in text
    ]
    return (dice.choice(said), text) if said else None


def reference_to(chunk_id: str, chunks: Chunks, dice: random.Random) -> tuple[str, str] | None:
    said = chunks.asked_by_name.get(chunk_id, ())
    return (dice.choice(said), chunks.texts[chunk_id]) if said else None


IS_DEFINED = re.compile(
    r"^(?:the |an? )?(?P<term>[^,;:()]{3,50}?)(?: \([^()]{1,40}\))? "
    r"(?:is|are|means|refers to|denotes) (?P<said>(?:an?|the|any|defined as|called) .{30,300})$",
    re.IGNORECASE,
)
NAME = (
    r"(?P<kind>section|table|figure|fig\.|appendix|chapter|article) "
    r"(?P<number>[A-Z]?[\d.]*\d|[A-Z]\b)"
)
NAMED = re.compile(rf"\(?(?:see |in |of )?{NAME}\)?", re.IGNORECASE)
BEGINS = re.compile(rf"^\W*(?:{NAME}|(?P<heading>\d+(?:\.\d+)*))[.:\s*_]", re.IGNORECASE)


def definitions_in(chunks: pl.DataFrame) -> dict[str, list[tuple[str, str]]]:
    """Terms in lower case, each with the chunks that define it, and what they say it is."""
    found: dict[str, list[tuple[str, str]]] = {}
    for chunk_id, text in chunks.select("chunk_id", "chunk_text").iter_rows():
        for sentence in sentences_of(text):
            if is_defined := IS_DEFINED.match(sentence):
                term = " ".join(split_words(is_defined["term"].lower()))
                if term and len(term.split()) <= 4:
                    found.setdefault(term, []).append((chunk_id, is_defined["said"]))
    return found


def references_in(chunks: pl.DataFrame) -> dict[str, list[str]]:
    """Of chunks that begin what has a name, such as `Table 2`, the sentences that name it.

    The name is left out of them, and they are of the same document and of other chunks.
    """
    first: dict[tuple[str, str], str] = {}
    naming: list[tuple[str, str, str, str]] = []
    rows = chunks.select("document_id", "file_name", "chunk_id", "chunk_text").iter_rows()
    for document, file, chunk_id, text in rows:
        for line in text.splitlines():
            if begins := BEGINS.match(line.replace("*", "")):
                is_heading = line.lstrip().startswith(("#", "**"))
                if begins["heading"] and not is_heading:
                    continue
                first.setdefault((document + file, name_of(begins)), chunk_id)
        for sentence in sentences_of(text):
            for named in NAMED.finditer(sentence):
                bare = sentence.replace(named[0], " ")
                naming.append((document + file, name_of(named), chunk_id, bare))
    found: dict[str, list[str]] = {}
    for document, name, chunk_id, sentence in naming:
        target = first.get((document, name))
        if target and target != chunk_id:
            found.setdefault(target, []).append(sentence)
    return found


def name_of(match: re.Match[str]) -> str:
    """`table 2`, `figure 3`; sections, chapters and headings that begin with a number are alike."""
    number = match.groupdict().get("heading") or match["number"].lower()
    kind = (match["kind"] or "section").lower()
    kinds = {"fig.": "figure", "chapter": "section", "article": "section"}
    return f"{kinds.get(kind, kind)} {number}"


def general_pairs(folder: Path) -> list[Pair]:
    """The questions of a BEIR folder, each with one of its answers."""
    texts = {
        row["_id"]: f"{row.get('title', '')} {row['text']}".strip()
        for row in lines_of(folder / "corpus.jsonl")
    }
    asked = {row["_id"]: row["text"] for row in lines_of(folder / "queries.jsonl")}
    judged = pl.read_csv(folder / "qrels.tsv", separator="\t", infer_schema=False)
    answers = {
        question: text
        for question, text, score in judged.select("query-id", "corpus-id", "score").iter_rows()
        if int(score) > 0
    }
    return [
        Pair(asked[question], texts[text], f"general {text}", frozenset([f"general {text}"]))
        for question, text in sorted(answers.items())
    ]


def sentences_of(text: str) -> list[str]:
    return [s for s in split_sentences(text) if 6 <= len(s.split()) <= 40 and s in text]


SOURCES = {
    "sentences": sentence_and_rest,
    "headings": heading_and_rest,
    "following": sentence_after,
    "definitions": definition_elsewhere,
    "references": reference_to,
}
"""What a chunk is asked by, and what is shown of it; None where it has none."""


def with_negatives(pairs: Sequence[Pair], by: str, depth: int, chunks: Chunks) -> list[Pair]:
    """The pairs with the best unrelated chunks of each ranking."""
    anchors = [pair.anchor for pair in pairs]
    scores = {
        "bm25": [chunks.by_words],
        "dense": [chunks.by_meaning],
        "both": [chunks.by_meaning, chunks.by_words],
    }[by]
    for score in scores:
        ranked = np.argsort(-score(anchors), axis=1, kind="stable")
        pairs = [
            replace(pair, negatives=(*pair.negatives, *unrelated(pair, row, chunks.ids, depth)))
            for pair, row in zip(pairs, ranked, strict=True)
        ]
    return list(pairs)


def unrelated(pair: Pair, ranked: np.ndarray, ids: Sequence[str], count: int) -> list[str]:
    taken = pair.related | {pair.chunk_id, *pair.negatives}
    return [ids[int(row)] for row in ranked if ids[int(row)] not in taken][:count]


def mined_again(
    pairs: Sequence[Pair], model: LocalEncoder, depth: int, chunks: Chunks
) -> list[Pair]:
    """The pairs with negatives that a trained model takes for answers."""
    asked, shown = chunks.embedded(model, [pair.anchor for pair in pairs])
    own = [pair.chunk_id for pair in pairs]
    related = [pair.related for pair in pairs]
    mined = mine_negatives(asked, shown, chunks.ids, own, related, depth)
    return [replace(pair, negatives=tuple(ids)) for pair, ids in zip(pairs, mined, strict=True)]


def without_shared(pair: Pair, share: float, chunks: Chunks, dice: random.Random) -> str:
    """The positive, without so many of the words that it shares with its question."""
    language = chunks.words.language(chunks.row_of[pair.chunk_id])
    words = sorted(set(split_words(pair.positive)))
    shared = [word for word in words if share_of_words(word, pair.anchor, language)]
    gone = [word for word in shared if dice.random() < share]
    if not gone:
        return pair.positive
    pattern = rf"\b(?:{'|'.join(map(re.escape, sorted(gone, key=len, reverse=True)))})\b"
    return re.sub(r" {2,}", " ", re.sub(pattern, "", pair.positive))


def train(
    arm: Mapping[str, Any], pairs: Sequence[Pair], chunks: Chunks, card: ModelCard
) -> tuple[Any, int, float]:
    """The model as trained, its updates, and pairs/s."""
    import torch

    torch.manual_seed(arm["seed"])
    dice = random.Random(arm["seed"])
    model = load_model(card.source, card.token_limit)
    set_dropout(model, 0.0)
    freeze_lowest(model, Settings().frozen_share)
    forward_once(model, this_machine())
    model.train()
    words, meaning = scores_of(arm, pairs, chunks)
    judged = (
        judged_by_cross_encoder(arm, pairs, chunks, card) if arm["teacher"] == "cross" else None
    )
    places = [
        Place(
            pair.anchor,
            pair.chunk_id,
            frozenset([pair.chunk_id, *pair.negatives]),
            pair.related | {pair.chunk_id},
            len(pair.positive),
        )
        for pair in pairs
    ]
    batches = [
        batch
        for epoch in range(arm["epochs"])
        for batch in group_pairs(places, BATCH, arm["seed"] + epoch)
    ]
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=arm["learning_rate"], weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warmed_cosine(len(batches)))
    start = time.perf_counter()
    for batch in batches:
        of_batch = [pairs[i] for i in batch]
        loss = batch_loss(arm, of_batch, batch, model, chunks, words, meaning, judged, dice)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
    seconds = time.perf_counter() - start
    return model, len(batches), sum(map(len, batches)) / seconds


def warmed_cosine(steps: int) -> Callable[[int], float]:
    warm = max(1, round(steps * WARMUP))

    def share(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + float(np.cos(np.pi * (step - warm) / max(1, steps - warm))))

    return share


def scores_of(
    arm: Mapping[str, Any], pairs: Sequence[Pair], chunks: Chunks
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What BM25 and the base model make of each question, where the arm needs it."""
    anchors = [pair.anchor for pair in pairs]
    ensemble = arm["distil"] and arm["teacher"] == "ensemble"
    by_words = arm["residual"] or ensemble or arm["easy"] != 1
    return (
        chunks.by_words(anchors) if by_words else None,
        chunks.by_meaning(anchors) if ensemble else None,
    )


def judged_by_cross_encoder(
    arm: Mapping[str, Any], pairs: Sequence[Pair], chunks: Chunks, card: ModelCard
) -> np.ndarray:
    """Scores of each question's chunk and its negatives, in that order: (pairs, 1 + negatives).

    The cross-encoder is the base with one output, trained on these lists by their softmax, twice
    over.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(arm["seed"])
    tokenizer = AutoTokenizer.from_pretrained(card.source)
    model: Any = AutoModelForSequenceClassification.from_pretrained(card.source, num_labels=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=CROSS_ENCODER_RATE)

    def scores(of: Sequence[Pair]) -> Any:
        shown = [(pair.anchor, [pair.chunk_id, *pair.negatives]) for pair in of]
        asked = [anchor for anchor, ids in shown for _ in ids]
        texts = [chunks.texts[i] for _, ids in shown for i in ids]
        read = tokenizer(
            asked,
            texts,
            truncation="only_second",
            max_length=card.token_limit,
            padding=True,
            return_tensors="pt",
        )
        return model(**read).logits.view(len(of), -1)

    order = np.random.default_rng(arm["seed"])
    for _ in range(2):
        for rows in np.array_split(order.permutation(len(pairs)), -(-len(pairs) // 8)):
            loss = cross_entropy(scores([pairs[i] for i in rows]), torch.zeros(len(rows)).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        parts = [scores(pairs[i : i + BATCH]).numpy() for i in range(0, len(pairs), BATCH)]
    judged = np.concatenate(parts)
    print(f"the teacher prefers the question's own chunk in {(judged.argmax(1) == 0).mean():.0%}")
    return judged


def batch_loss(
    arm: Mapping[str, Any],
    pairs: Sequence[Pair],
    rows: Sequence[int],
    model: Any,
    chunks: Chunks,
    words: np.ndarray | None,
    meaning: np.ndarray | None,
    judged: np.ndarray | None,
    dice: random.Random,
) -> Any:
    import torch
    from torch.nn.functional import cross_entropy, kl_div, normalize

    positives = [
        without_shared(pair, arm["shared"], chunks, dice) if arm["shared"] else pair.positive
        for pair in pairs
    ]
    shown = [pair.chunk_id for pair in pairs] + [i for pair in pairs for i in pair.negatives]
    texts = positives + [chunks.texts[i] for pair in pairs for i in pair.negatives]
    asked, answers = (
        model(model.preprocess(batch))["sentence_embedding"]
        for batch in ([pair.anchor for pair in pairs], texts)
    )
    places = [chunks.row_of[i] for i in shown]
    target = torch.arange(len(pairs))
    of_words = None if words is None else torch.from_numpy(words[rows][:, places])
    total = torch.zeros(())
    for size in DIMENSIONS:
        cosines = normalize(asked[:, :size], dim=1) @ normalize(answers[:, :size], dim=1).T
        if arm["residual"] and of_words is not None:
            cosines = cosines + arm["residual"] * of_words
        loss = cross_entropy(cosines / TEMPERATURE, target, reduction="none")
        if arm["easy"] != 1 and words is not None:
            own, best = words[rows, places[: len(rows)]], words[rows].max(1)
            weight = torch.where(torch.from_numpy((own > 0) & (own >= best)), arm["easy"], 1.0)
            mean = (loss * weight).sum() / weight.sum()
        else:
            mean = loss.mean()
        if arm["distil"] and meaning is not None and of_words is not None:
            teacher = torch.from_numpy(meaning[rows][:, places]) + TEACHER_OF_WORDS * of_words
            divergence = kl_div(
                torch.log_softmax(cosines / TEMPERATURE, 1),
                torch.log_softmax(teacher / TEMPERATURE, 1),
                reduction="batchmean",
                log_target=True,
            )
            mean = (1 - arm["distil"]) * mean + arm["distil"] * divergence
        if judged is not None:
            mine = torch.tensor([[row, *mine_of(row, pairs)] for row in range(len(pairs))])
            divergence = kl_div(
                torch.log_softmax(cosines.gather(1, mine) / TEMPERATURE, 1),
                torch.log_softmax(torch.from_numpy(judged[rows]), 1),
                reduction="batchmean",
                log_target=True,
            )
            mean = (1 - arm["distil"]) * mean + arm["distil"] * divergence
        total = total + mean
    return total


def mine_of(row: int, pairs: Sequence[Pair]) -> range:
    """Where a pair's negatives stand among a batch's texts. Each pair has as many."""
    count = len(pairs[row].negatives)
    return range(len(pairs) + row * count, len(pairs) + (row + 1) * count)


def measure(chosen: TrainingSet, options: argparse.Namespace, scratch: Path) -> None:
    card = limited(model_card(Settings(model=options.model)), options.tokens)
    about = {
        "set": chosen.name,
        "questions": chosen.test.questions.height,
        "chunks": chosen.test.corpus.height,
        "tokens": card.token_limit,
        "most": options.pairs,
        **({"general": options.general.name} if options.general else {}),
        "model": options.model,
    }
    base: Scored | None = None
    encoder = LocalEncoder(card, "fp32")
    given = training_input(
        pl.concat(
            [chosen.pairs, chosen.pairs.head(1).with_columns(split=pl.lit("validation"))]
        ).with_columns(sha256=pl.lit("")),
        chosen.warehouse.read("SELECT document_id, chunk_index, chunk_id FROM chunks"),
    )
    rows = with_related(given.pairs, given.neighbours)
    all_chunks = chosen.warehouse.read("SELECT * FROM chunks")
    # BM25 and mined negatives see its chunks in every arm: so the set is in `about`.
    general = general_pairs(options.general) if options.general else []
    others = {pair.chunk_id: pair.positive for pair in general}
    without_context = Chunks.of(rows, encoder, all_chunks, others)
    for name in options.arms:
        seen = [line for line in lines_of(options.out) if about.items() <= line.items()]
        if {line["share"] for line in seen if line["arm"] == name} == set(SHARES):
            continue
        base = base or scored(card, chosen.test, DIMENSIONS)
        arm = arm_of(name, mixed=options.mixed, general=bool(options.general))
        chunks = without_context.in_context() if arm["context"] else without_context
        before = {
            text: chunks.shown(chunk_id, text) if arm["context"] else text
            for chunk_id, text in chosen.test.texts.items()
        }
        pairs = pairs_of(arm, rows, chunks, general, options)
        if arm["negatives"]:
            pairs = with_negatives(pairs, arm["negatives"], arm["depth"], chunks)
        model, updates, speed = train(arm, pairs, chunks, card)
        for _ in range(1, arm["rounds"]):
            save_model(model, scratch / "round", DIMENSIONS)
            miner = LocalEncoder(replace(card, source=str(scratch / "round")), "fp32")
            pairs = mined_again(pairs, miner, arm["depth"], chunks)
            model, updates, speed = train(arm, pairs, chunks, card)
        tuned = {key: weight.detach().clone() for key, weight in model.named_parameters()}
        untrained = dict(load_model(card.source).named_parameters())
        for share in SHARES:
            put_weights(model, interpolate(untrained, tuned, share))
            save_model(model, scratch / "model", DIMENSIONS)
            trained = replace(card, source=str(scratch / "model"))
            found = scored(trained, chosen.test, DIMENSIONS, before)
            line: Figures = {**about, "arm": name, "share": share, "pairs": len(pairs)}
            line |= {"updates": updates, "pairs_per_second": round(speed, 2)}
            line["ndcg_at_10"] = compared(chosen, base.dense, found.dense)
            line["hybrid"] = compared(chosen, base.hybrid, found.hybrid)
            line["commit"] = commit()
            print(json.dumps(line), flush=True)
            with options.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def report(out: Path) -> str:
    sizes = [str(size) for size in DIMENSIONS]
    table = rows_of("set", "arm", "share", "pairs/s", *sizes, "hybrid", "95 % of its change")
    for line in lines_of(out):
        figures = [*(line["ndcg_at_10"][size] for size in sizes), *line["hybrid"].values()]
        cells = [f"{of['ndcg']:.4f} ({of['change']:+.4f})" for of in figures]
        interval = f"{figures[-1]['low']:+.3f} … {figures[-1]['high']:+.3f}"
        who = (line["set"], line["arm"], line["share"], line["pairs_per_second"])
        table += rows_of(*who, *cells, interval)[:1]
    return "\n".join(table)


def is_by_page(folder: Path) -> bool:
    """Whether the ids of a BEIR folder are DOCUMENT#PAGE."""
    with (folder / "corpus.jsonl").open(encoding="utf-8") as file:
        return "#" in json.loads(file.readline())["_id"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set", nargs="+", default=[], help="NAME=HOME or NAME=BEIR_FOLDER")
    parser.add_argument("--arms", nargs="+", default=["default"])
    parser.add_argument("--mixed", action="store_true", help="own questions train, too")
    parser.add_argument("--general", type=Path, help="BEIR folder whose questions train, too")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, added to")
    parser.add_argument("--report", action="store_true", help="print --out as a table")
    parser.add_argument("--model", default=Settings().model)
    parser.add_argument("--pairs", type=int, default=512, help="at most so many; 0: all")
    parser.add_argument("--chunks", type=int, default=0, help="searched; all that answer are")
    parser.add_argument("--tokens", type=int, default=0, help="of a text; 0: the model's own")
    options = parser.parse_args()
    if options.report:
        print(report(options.out))
        return
    for given in options.set:
        name, _, source = given.partition("=")
        with tempfile.TemporaryDirectory() as scratch:
            beir = (Path(source) / "corpus.jsonl").is_file()
            reading = argparse.Namespace(
                extractive=beir and not is_by_page(Path(source)),
                kinds=[],
                pairs=0,
                validation=0,
                questions=0,
                chunks=options.chunks,
            )
            chosen = read_set(name, Path(source), reading, Path(scratch))
            chosen = mixed_set(chosen) if options.mixed else chosen
            measure(chosen, options, Path(scratch))


if __name__ == "__main__":
    main()
