"""Questions taken from the chunks themselves: no language model, no network, the same every time.

There are two kinds:

- `keywords`: the chunk's most salient terms (tf-idf in its document), as typed into a search box.
- `definition`: `What is X?` where the chunk says what X is, in a sentence, a list or a table row.

A question that several chunks of a document would answer alike is asked of none of them. It would
be noise: a contrastive loss takes the other chunks as negatives.

Salience is counted in each document alone. So a document's questions don't change when other
documents arrive.

The kinds were chosen on people's questions of three corpora: see `docs/results.md`, "Extractive
questions, on people's questions". Two kinds were left out. A mix with the chunk's sentences did
worse on scifact than keywords alone, and on no corpus clearly better. Headings as questions lowered
NDCG@10 in a corpus whose chunks begin with them. `benchmarks/extractive_mix.py` measures mixes of
all four kinds.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain

import polars as pl

from embed_assets.questions.extractive.kinds import (
    definition_questions,
    keyword_questions,
    question_key,
)
from embed_assets.questions.extractive.passages import Passage, read_passage, tidy
from embed_assets.questions.extractive.salience import Salience
from embed_assets.words import count_words

VERSION = "extractive-2"
"""Part of what identifies a question: raise it when the rules below change what is asked."""

Mix = Mapping[str, tuple[Callable[[Passage, Salience], list[str]], int]]
"""By kind: all it can ask about a passage, best first; how many questions a chunk gets at most."""

MIX: Mix = {"keywords": (keyword_questions, 1), "definition": (definition_questions, 1)}

SCHEMA = {
    "chunk_id": pl.String,
    "document_id": pl.String,
    "question": pl.String,
    "kind": pl.String,
}

SHORTEST_CHUNK = 6  # words: a page number or a lone heading answers nothing


def extractive_questions(chunks: pl.DataFrame, mix: Mix = MIX) -> pl.DataFrame:
    """Questions for each chunk of one or more documents, by kind.

    Args:
        chunks: document_id, chunk_index, chunk_id, chunk_text (markdown), heading_path. Rows in any
            order; a text that stands twice in a document counts once.
        mix: the kinds, and how many questions of each a chunk gets at most.

    Returns:
        chunk_id, document_id, question, kind; by document and chunk. A chunk with too little text
        has none.

    """
    documents = chunks.sort("document_id", "chunk_index").partition_by(
        "document_id", maintain_order=True
    )
    rows = chain.from_iterable(_questions_of_document(document, mix) for document in documents)
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def _questions_of_document(document: pl.DataFrame, mix: Mix) -> Iterable[tuple[str, str, str, str]]:
    columns = document.unique("chunk_id", keep="first", maintain_order=True).select(
        "chunk_id", "chunk_text", "heading_path"
    )
    passages = [read_passage(*row) for row in columns.iter_rows()]
    passages = [p for p in passages if sum(map(count_words, p.texts)) >= SHORTEST_CHUNK]
    salience = Salience.of(passages)
    candidates = [
        {kind: _presentable(ask(passage, salience)) for kind, (ask, _) in mix.items()}
        for passage in passages
    ]
    chunks_with = Counter(
        key for kinds in candidates for key in {question_key(q) for q in chain(*kinds.values())}
    )
    document_id: str = document["document_id"][0]
    for passage, kinds in zip(passages, candidates, strict=True):
        asked: set[str] = set()
        for kind, (_, most) in mix.items():
            keyed = [(question_key(question), question) for question in kinds[kind]]
            fresh = [(key, q) for key, q in keyed if chunks_with[key] == 1 and key not in asked]
            for key, question in fresh[:most]:
                asked.add(key)
                yield passage.chunk_id, document_id, question, kind


def _presentable(questions: Iterable[str]) -> list[str]:
    """Tidy, each once (where it comes last, as it is first written), none of a single word."""
    backwards = reversed([tidy(question) for question in questions])
    unlike = {question_key(question): question for question in backwards}
    return [question for question in reversed(unlike.values()) if count_words(question) > 1]
