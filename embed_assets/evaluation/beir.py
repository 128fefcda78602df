"""A BEIR folder as a retrieval task: corpus.jsonl, queries.jsonl and the judgements of a split.

Judgements (qrels) may name queries or documents that the files lack, and queries may be without a
relevant document. Neither ends the evaluation, and both are counted: a figure is worth as much as
what it was measured on. Thakur et al. 2021 (BEIR).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from embed_assets.data_files import DataFileError, beir_rows, beir_text, read_qrels
from embed_assets.errors import SettingsError
from embed_assets.evaluation import metrics
from embed_assets.evaluation.retrieval import LISTED, Evaluation

DEFAULT_SPLIT = "test"


@dataclass(frozen=True, eq=False)
class BeirTask:
    """Queries to score and the corpus to search.

    corpus, queries: text by id; queries are those with a relevant document, and only they are
    scored. grades: of each of them, the documents with a score above 0, by id. A document that the
    corpus lacks stays among them: it is relevant, and can't be found.
    queries_left_out: queries without a relevant document in this split. unknown_queries,
    unknown_documents: how many of them the judgements name and the files lack.
    """

    qrels: Path
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, float]]
    queries_left_out: int
    unknown_queries: int
    unknown_documents: int

    @cached_property
    def relevant(self) -> dict[str, set[str]]:
        """Ids of the relevant documents by query id."""
        return {query: set(grades) for query, grades in self.grades.items()}

    @property
    def is_graded(self) -> bool:
        """Whether some documents are more relevant than others."""
        return len({grade for grades in self.grades.values() for grade in grades.values()}) > 1


def read_beir(folder: Path, split: str | None = None, named_by: str = "--beir") -> BeirTask:
    """The task of a folder. SettingsError names what is missing or wrong, file and line.

    split: a file of qrels/. Without it qrels.tsv, else qrels/test.tsv, else the only one there.
    named_by: the option or setting that names the folder, for the error.
    """
    try:
        corpus = _read_texts(folder / "corpus.jsonl", beir_text)
        queries = _read_texts(folder / "queries.jsonl", lambda row: row["text"])
        qrels = _qrels_file(folder, split)
        judged = read_qrels(qrels)
    except DataFileError as error:
        raise SettingsError(str(error), named_by) from error
    grades = {
        query: relevant
        for query, scores in judged.items()
        if query in queries
        and (relevant := {document: score for document, score in scores.items() if score > 0})
    }
    if not corpus:
        raise SettingsError(f"{folder / 'corpus.jsonl'} is empty: nothing to search.", named_by)
    if not grades:
        raise SettingsError(
            f"{qrels} gives none of the queries a relevant document: nothing to score.", named_by
        )
    documents = {document for scores in judged.values() for document in scores}
    return BeirTask(
        qrels=qrels,
        corpus=corpus,
        queries={query: queries[query] for query in grades},
        grades=grades,
        queries_left_out=len(queries) - len(grades),
        unknown_queries=len(judged.keys() - queries.keys()),
        unknown_documents=len(documents - corpus.keys()),
    )


def graded_ndcg(task: BeirTask, evaluation: Evaluation) -> dict[int, float]:
    """Mean NDCG@10 by dimension that weighs each document by its grade."""
    means = {}
    for (dimension,), rows in evaluation.queries.group_by("dimension", maintain_order=True):
        grades = [task.grades[query] for query in rows["question_id"]]
        found = [
            [of_query.get(document, 0.0) for document in documents]
            for of_query, documents in zip(grades, rows["top_ids"], strict=True)
        ]
        best = [sorted(of_query.values(), reverse=True) for of_query in grades]
        values = metrics.graded_ndcg(metrics.padded(found), metrics.padded(best), LISTED)
        means[int(str(dimension))] = float(values.mean())
    return means


def _read_texts(file: Path, text_of: Callable[[Mapping[str, Any]], str]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for number, row in beir_rows(file):
        if row["_id"] in texts:
            raise DataFileError(file, f"_id {row['_id']!r} is there twice", f"line {number}")
        texts[row["_id"]] = text_of(row)
    return texts


def _qrels_file(folder: Path, split: str | None) -> Path:
    files = {file.stem: file for file in sorted((folder / "qrels").glob("*.tsv"))}
    whole = folder / "qrels.tsv"
    if split is not None:
        if split not in files:
            raise DataFileError(
                folder / "qrels", f"has no {split}.tsv, but {', '.join(files) or 'nothing'}"
            )
        return files[split]
    if whole.is_file():
        return whole
    if DEFAULT_SPLIT in files:
        return files[DEFAULT_SPLIT]
    if len(files) > 1:
        raise DataFileError(folder / "qrels", f"has {', '.join(files)}: say which with --split")
    if not files:
        raise DataFileError(folder, "has neither qrels.tsv nor qrels/test.tsv")
    return next(iter(files.values()))
