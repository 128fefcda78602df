"""How much the questions are like people's: what they share with their answers, and how hard.

Questions that a machine makes from a chunk share its words. Where BM25 finds nearly all of their
chunks first, they show little of what people will ask, and a model can't prove much on them.
"""

import polars as pl

from embed_assets.lexical import LexicalIndex
from embed_assets.pairs.splits import TRAIN, VALIDATION
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import EXTRACTIVE
from embed_assets.words import count_words

LOOKED_AT = 500
"""Questions of each kind that are looked at, the first by their ids, which are hashes."""
SEARCHED = 50_000
"""Chunks that are searched at most, those that answer and others: an index of 100,000 takes two
minutes."""
TEN = 10
SCHEMA = pl.Schema(
    {
        "writer": pl.String,
        "use": pl.String,
        "questions": pl.Int64,
        "looked_at": pl.Int64,
        "words": pl.Float64,
        "shared_words": pl.Float64,
        "found_first": pl.Float64,
        "found_in_ten": pl.Float64,
        "asking": pl.Float64,
    }
)
_QUESTIONS = """
SELECT p.question_id, p.anchor, p.relevant_chunk_ids,
    CASE WHEN q.kind = ? THEN 'people' WHEN p.generator = ? THEN 'rules' ELSE 'a language model'
    END AS writer,
    CASE WHEN p.split IN (?, ?) THEN 'trains' ELSE 'tests' END AS use
FROM training_pairs p LEFT JOIN synthetic_questions q USING (question_id)
"""
_WRITERS = pl.Enum(["people", "a language model", "rules"])


def read_realism(warehouse: Warehouse) -> pl.DataFrame:
    """`realism` of the questions and chunks as they are stored."""
    questions = warehouse.read(_QUESTIONS, [LABELLED, EXTRACTIVE, TRAIN, VALIDATION])
    return realism(questions, warehouse.corpus())


def realism(questions: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    """A row for each who wrote questions, and what they are for: what such questions are like.

    questions: question_id, anchor, relevant_chunk_ids, writer, use. corpus: chunk_id, chunk_text,
    one row per distinct text.

    Returns the columns of SCHEMA, people first. looked_at: questions that the figures are of.
    words: of a question, the median. The others are shares: shared_words, of a question's words
    those that stand in the chunk that has most of them, stemmed and without stop words, the mean;
    found_first and found_in_ten, of the questions those whose answer BM25 ranks so; asking, those
    that end with a question mark.
    """
    kinds = questions.sort("question_id").group_by("writer", "use", maintain_order=True)
    looked_at = kinds.head(LOOKED_AT)
    counts = kinds.len("questions")
    texts = _searched(corpus, looked_at)
    index = LexicalIndex.of(texts["chunk_text"].to_list())
    row_of = {chunk_id: row for row, chunk_id in enumerate(texts["chunk_id"])}
    found = [
        _found(index, texts["chunk_text"], anchor, [row_of[i] for i in relevant if i in row_of])
        for anchor, relevant in looked_at.select("anchor", "relevant_chunk_ids").iter_rows()
    ]
    of_each = looked_at.with_columns(
        pl.Series("shared_words", [shared for shared, _ in found], pl.Float64),
        pl.Series("rank", [rank for _, rank in found], pl.Int64),
        words=pl.col("anchor").map_elements(count_words, pl.Int64),
        asking=pl.col("anchor").str.strip_chars_end().str.contains("[?？؟\u037e]$"),
    )
    figures = of_each.group_by("writer", "use").agg(
        pl.len().cast(pl.Int64).alias("looked_at"),
        pl.col("words").median(),
        pl.col("shared_words").mean(),
        found_first=(pl.col("rank") == 1).fill_null(False).mean(),
        found_in_ten=pl.col("rank").is_not_null().mean(),
        asking=pl.col("asking").mean(),
    )
    rows = counts.join(figures, on=["writer", "use"])
    return rows.sort(pl.col("writer").cast(_WRITERS), "use").cast(SCHEMA).select(SCHEMA.names())


def _searched(corpus: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """At most SEARCHED chunks, those that answer a question among them.

    chunk_ids are hashes: the first of them are a random part.
    """
    answering = questions["relevant_chunk_ids"].explode().implode()
    return corpus.sort(~pl.col("chunk_id").is_in(answering), "chunk_id").head(SEARCHED)


def _found(
    index: LexicalIndex, texts: pl.Series, question: str, answers: list[int]
) -> tuple[float | None, int | None]:
    """The share of a question's words in the answer that has most of them, and its rank to TEN."""
    shares = [index.share_of_words(question, row, texts[row]) for row in answers]
    known = [share for share in shares if share is not None]
    ranked = index.top(question, TEN)[0].tolist()
    ranks = [ranked.index(row) + 1 for row in answers if row in ranked]
    return max(known, default=None), min(ranks, default=None)


def realism_table(rows: pl.DataFrame) -> pl.DataFrame:
    """`realism` as a person reads it: the figures as texts, shares in percent."""
    shares = ("shared_words", "found_first", "found_in_ten", "asking")
    said = {
        "shared_words": "words shared with the answer",
        "found_first": "answer first by BM25",
        "found_in_ten": "among ten",
        "asking": "end with ?",
    }
    percent = [
        pl.format("{} %", (100 * pl.col(name)).round(0).cast(pl.Int64)).fill_null("–")
        for name in shares
    ]
    return rows.select(
        pl.col("writer").alias("written by"),
        pl.col("use").alias("what for"),
        pl.col("questions"),
        pl.col("words").round(0).cast(pl.Int64).alias("words, median"),
        *(column.alias(said[name]) for name, column in zip(shares, percent, strict=True)),
    )
