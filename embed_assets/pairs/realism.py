"""How much the questions are like people's: what they share with their answers, and how hard.

Questions that a machine makes from a chunk share its words. Where BM25 finds nearly all of their
chunks first, they show little of what people will ask, and a model can't prove much on them.
"""

import math

import polars as pl

from embed_assets.lexical import LexicalIndex, share_of_words
from embed_assets.pairs.splits import LABELLED as LABELLED_SPLIT
from embed_assets.pairs.splits import TRAIN, VALIDATION
from embed_assets.questions.labelled.evidence import LABELLED
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import EXTRACTIVE
from embed_assets.words import count_words

LOOKED_AT = 500
"""Questions of each writer and use that are looked at, the first by their ids, which are hashes."""
SEARCHED = 10_000
"""Chunks that are searched at most, those that answer and others: an index of so many takes four
seconds."""
ANSWERS_READ = 20
"""Answers of a question whose words are compared with its own: a whole document may answer."""
DEPTH = 10
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
PEOPLE, LANGUAGE_MODEL, RULES, NOT_KNOWN = "people", "a language model", "rules", "not known"
_QUESTIONS = """
SELECT p.question_id, p.anchor, p.relevant_chunk_ids, CASE
    WHEN q.kind = ? OR p.split = ? THEN ?
    WHEN coalesce(p.generator, q.generator) = ? THEN ?
    WHEN coalesce(p.generator, q.generator) IS NULL THEN ?
    ELSE ? END AS writer,
    CASE WHEN p.split IN (?, ?) THEN 'trains or chooses' ELSE 'tests' END AS use
FROM training_pairs p LEFT JOIN synthetic_questions q USING (question_id)
"""


def read_realism(warehouse: Warehouse) -> pl.DataFrame:
    """`realism` of the questions and chunks as they are stored now."""
    with warehouse.at_once() as stored:
        writers = [LABELLED, LABELLED_SPLIT, PEOPLE, EXTRACTIVE, RULES, NOT_KNOWN, LANGUAGE_MODEL]
        questions = stored.read(_QUESTIONS, [*writers, TRAIN, VALIDATION])
        return realism(questions, stored.corpus())


def realism(questions: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    """One row per writer and use of questions: how long they are, and how near to their answers.

    questions: question_id, anchor, relevant_chunk_ids, writer, use. corpus: chunk_id, chunk_text,
    one row per distinct text.

    Returns the columns of SCHEMA, people first. looked_at: questions that the figures are of.
    words: of a question, the median. The others are shares: shared_words, of a question's words
    those that stand in the answer that has most of them, stemmed and without stop words, the mean;
    found_first and found_in_ten, of the questions whose answer is there those whose answer BM25
    ranks so, among SEARCHED chunks; asking, those that end with a question mark.
    """
    if questions.is_empty():
        return SCHEMA.to_frame()
    groups = questions.sort("question_id").group_by("writer", "use", maintain_order=True)
    looked_at = groups.head(LOOKED_AT)
    texts = _searched(corpus, looked_at)
    index = LexicalIndex.of(texts["chunk_text"].to_list())
    row_of = {chunk_id: row for row, chunk_id in enumerate(texts["chunk_id"])}
    found = [
        _found(index, texts["chunk_text"], anchor, [row_of[i] for i in relevant if i in row_of])
        for anchor, relevant in looked_at.select("anchor", "relevant_chunk_ids").iter_rows()
    ]
    of_each = looked_at.with_columns(
        pl.Series("shared_words", [shared for shared, _ in found], pl.Float64),
        pl.Series("rank", [rank for _, rank in found], pl.Float64),
        words=pl.col("anchor").map_elements(count_words, pl.Int64),
        asking=pl.col("anchor").str.strip_chars_end().str.contains("[?？؟\u037e]$"),
    )
    figures = of_each.group_by("writer", "use").agg(
        pl.len().alias("looked_at"),
        pl.col("words").median(),
        pl.col("shared_words").mean(),
        found_first=(pl.col("rank") == 1).mean(),
        found_in_ten=(pl.col("rank") <= DEPTH).mean(),
        asking=pl.col("asking").mean(),
    )
    rows = groups.len("questions").join(figures, on=["writer", "use"])
    people_first = pl.col("writer").replace_strict(
        {writer: n for n, writer in enumerate((PEOPLE, LANGUAGE_MODEL, RULES, NOT_KNOWN))}
    )
    return rows.sort(people_first, "use").select(SCHEMA.names()).cast(SCHEMA)


def _searched(corpus: pl.DataFrame, questions: pl.DataFrame) -> pl.DataFrame:
    """At most SEARCHED chunks, those that answer a question before others.

    chunk_ids are hashes: the first of them are a random part.
    """
    answering = questions["relevant_chunk_ids"].explode().implode()
    return corpus.sort(~pl.col("chunk_id").is_in(answering), "chunk_id").head(SEARCHED)


def _found(
    index: LexicalIndex, texts: pl.Series, question: str, answers: list[int]
) -> tuple[float | None, float | None]:
    """The share of a question's words in the answer that has most of them, and its rank.

    The rank is infinite beyond DEPTH, and None where no answer is there.
    """
    shares = [
        share_of_words(question, texts[row], index.language(row)) for row in answers[:ANSWERS_READ]
    ]
    known = [share for share in shares if share is not None]
    ranked = index.top(question, DEPTH)[0].tolist()
    ranks = [ranked.index(row) + 1 if row in ranked else math.inf for row in answers]
    return max(known, default=None), min(ranks, default=None)


def realism_table(rows: pl.DataFrame) -> pl.DataFrame:
    """`realism` as a person reads it: the figures as texts, shares in percent."""
    shares = {
        "shared_words": "words shared with the answer",
        "found_first": "answer first by BM25",
        "found_in_ten": f"in BM25's first {DEPTH}",
        "asking": "end with a question mark",
    }
    percent = [
        pl.format("{} %", (100 * pl.col(name)).round(0).cast(pl.Int64)).fill_null("–").alias(said)
        for name, said in shares.items()
    ]
    in_part = pl.col("looked_at") < pl.col("questions")
    counts = pl.when(in_part).then(pl.format("{} of {}", "looked_at", "questions"))
    return rows.select(
        pl.col("writer").alias("written by"),
        pl.col("use").alias("what for"),
        counts.otherwise(pl.format("{}", "questions")).alias("questions"),
        pl.col("words").round(0).cast(pl.Int64).alias("words, median"),
        *percent,
    )
