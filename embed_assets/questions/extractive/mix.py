"""Questions taken from the chunks themselves: no language model, no network, the same every time.

Four kinds, each after a published way of making (query, passage) pairs without labels:

- `heading`: the section's heading, with the heading above it or the chunk's own terms where it
  would fit several chunks. (Title to passage: the author's own label of the text.)
- `keywords`: the chunk's most salient terms (tf-idf in its document), as typed into a search box.
- `definition`: `What is X?` where the chunk says what X is, in a sentence, a list or a table row.
- `sentence`: a sentence of the chunk without its markup. (Inverse cloze task: Lee, Chang &
  Toutanova, ACL 2019, where the sentence stays in its passage in one case of ten; independent
  cropping: Izacard et al., Contriever, TMLR 2022, where both crops may share text, as here.)

A question that several chunks of a document would answer alike is noise for a contrastive loss,
which takes the other chunk as a negative: it is dropped from all of them. What counts as salient is
counted in each document alone, so that a document's questions don't change when others arrive.

Which of them to ask was decided on people's questions of three corpora, in `docs/results.md`
("Extractive questions alone"). Keywords and definitions: sentences lie in their chunks word for
word, where they are among the questions one corpus loses, and no corpus gains clearly. Headings are
left out too: in a corpus whose chunks begin with them they lowered NDCG@10.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import chain

import polars as pl

from embed_assets.questions.extractive.kinds import CANDIDATES, Kind, question_key
from embed_assets.questions.extractive.passages import read_passage, tidy
from embed_assets.questions.extractive.salience import Salience
from embed_assets.words import count_words

VERSION = "extractive-2"
"""Part of what identifies a question: raise it when the rules below change what is asked."""

MIX: Mapping[Kind, int] = {"keywords": 1, "definition": 1}
"""How many questions of each kind a chunk gets at most. Chosen by the figures named above."""

SCHEMA = {
    "chunk_id": pl.String,
    "document_id": pl.String,
    "question": pl.String,
    "kind": pl.String,
}

SHORTEST_CHUNK = 6  # words: a page number or a lone heading answers nothing


def extractive_questions(chunks: pl.DataFrame, mix: Mapping[Kind, int] = MIX) -> pl.DataFrame:
    """Questions for each chunk of one or more documents, by kind.

    Args:
        chunks: document_id, chunk_index, chunk_id, chunk_text (markdown), heading_path. Rows in any
            order; a text that stands twice in a document counts once.
        mix: how many questions of each kind a chunk gets at most.

    Returns:
        chunk_id, document_id, question, kind; by document and chunk. A chunk with too little text
        has none.

    Raises:
        ValueError: mix names a kind that does not exist.

    """
    if unknown := set(mix) - set(CANDIDATES):
        raise ValueError(f"mix: no kind {sorted(unknown)}. Kinds: {', '.join(CANDIDATES)}.")
    documents = chunks.sort("document_id", "chunk_index").partition_by(
        "document_id", maintain_order=True
    )
    rows = chain.from_iterable(_questions_of_document(document, mix) for document in documents)
    return pl.DataFrame(list(rows), schema=SCHEMA, orient="row")


def _questions_of_document(
    document: pl.DataFrame, mix: Mapping[Kind, int]
) -> Iterable[tuple[str, str, str, str]]:
    columns = document.unique("chunk_id", keep="first", maintain_order=True).select(
        "chunk_id", "chunk_text", "heading_path"
    )
    passages = [read_passage(*row) for row in columns.iter_rows()]
    passages = [p for p in passages if sum(map(count_words, p.texts)) >= SHORTEST_CHUNK]
    salience = Salience.of(passages)
    candidates: list[dict[Kind, list[str]]] = [
        {kind: _presentable(CANDIDATES[kind](passage, salience)) for kind in mix}
        for passage in passages
    ]
    chunks_with = Counter(
        key for kinds in candidates for key in {question_key(q) for q in chain(*kinds.values())}
    )
    document_id: str = document["document_id"][0]
    for passage, kinds in zip(passages, candidates, strict=True):
        asked: set[str] = set()
        for kind, questions in kinds.items():
            keyed = [(question_key(question), question) for question in questions]
            fresh = [(key, q) for key, q in keyed if chunks_with[key] == 1 and key not in asked]
            for key, question in fresh[: mix[kind]]:
                asked.add(key)
                yield passage.chunk_id, document_id, question, kind


def _presentable(questions: Iterable[str]) -> list[str]:
    """Tidy, each once (where it comes last, as it is first written), none of a single word."""
    backwards = reversed([tidy(question) for question in questions])
    unlike = {question_key(question): question for question in backwards}
    return [question for question in reversed(unlike.values()) if count_words(question) > 1]
