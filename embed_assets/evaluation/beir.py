"""A BEIR folder as a retrieval task: corpus.jsonl, queries.jsonl and the judgements of a split.

Judgements (qrels) may name queries or documents that the files lack, and queries may be without a
relevant document. Neither ends the evaluation, and both are counted: a figure is worth as much as
what it was measured on. Thakur et al. 2021 (BEIR).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from embed_assets.data_files.beir import (
    WHOLE,
    qrels_files,
    read_corpus,
    read_qrels,
    read_queries,
)
from embed_assets.data_files.reading import BadRow, DataFileError
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
    unknown_documents: how many of them the judgements name and the files lack. bad_rows: of the
    three files, those that could not be used.
    """

    qrels: Path
    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    grades: Mapping[str, Mapping[str, float]]
    queries_left_out: int
    unknown_queries: int
    unknown_documents: int
    bad_rows: tuple[BadRow, ...] = ()

    @cached_property
    def relevant(self) -> dict[str, set[str]]:
        """Ids of the relevant documents by query id."""
        return {query: set(grades) for query, grades in self.grades.items()}

    @cached_property
    def own(self) -> dict[str, str]:
        """The document that is no result for a query: that of the query's own id.

        So BEIR scores sets in which queries stand in the corpus (ArguAna). One that is judged
        relevant stays: then the ids are the same by chance, or on purpose.
        """
        return {
            query: query
            for query, grades in self.grades.items()
            if query in self.corpus and query not in grades
        }

    @property
    def is_graded(self) -> bool:
        """Whether some documents are more relevant than others."""
        return len({grade for grades in self.grades.values() for grade in grades.values()}) > 1


def read_beir(folder: Path, split: str | None = None, named_by: str = "--beir") -> BeirTask:
    """The task of a folder. SettingsError names what is missing or wrong, file and line.

    split: a file of qrels/. Without it qrels.tsv, else qrels/test.tsv, else the only one there.
    named_by: the option or setting that names the folder, for the error. A row that can't be used
    is left out, and listed.
    """
    try:
        corpus, bad_documents = read_corpus(folder)
        queries, bad_queries = read_queries(folder)
        files = _qrels_of(folder, split)
        qrels = read_qrels(files)
    except DataFileError as error:
        raise SettingsError(str(error), named_by) from error
    grades = {
        query: relevant
        for query, scores in qrels.scores.items()
        if query in queries
        and (relevant := {document: score for document, score in scores.items() if score > 0})
    }
    if not grades:
        raise SettingsError(
            f"{files[0]} gives none of the queries a relevant document: nothing to score.", named_by
        )
    documents = {document for scores in qrels.scores.values() for document in scores}
    return BeirTask(
        qrels=files[0],
        corpus=corpus,
        queries={query: queries[query] for query in grades},
        grades=grades,
        queries_left_out=len(queries) - len(grades),
        unknown_queries=len(qrels.scores.keys() - queries.keys()),
        unknown_documents=len(documents - corpus.keys()),
        bad_rows=(*bad_documents, *bad_queries, *qrels.bad),
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


def _qrels_of(folder: Path, split: str | None) -> list[Path]:
    """Files of the judgements of a split."""
    files = qrels_files(folder)
    splits = sorted(files.keys() - {WHOLE})
    if split is not None:
        if split not in splits:
            reason = f"has no {split}.tsv, but {', '.join(splits) or 'nothing'}"
            raise DataFileError(folder / "qrels", reason)
        return files[split]
    for chosen in (WHOLE, DEFAULT_SPLIT):
        if chosen in files:
            return files[chosen]
    if len(splits) > 1:
        raise DataFileError(folder / "qrels", f"has {', '.join(splits)}: say which with --split")
    return files[splits[0]]
