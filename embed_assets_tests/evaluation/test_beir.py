"""BEIR folders: what is read, what is counted, what is refused, and graded figures."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from embed_assets.errors import SettingsError
from embed_assets.evaluation.beir import graded_ndcg, read_beir
from embed_assets.evaluation.retrieval import evaluate_rankings

HEADER = "query-id\tcorpus-id\tscore\n"
CRANFIELD = Path(__file__).parents[3] / "shared" / "data" / "ir" / "cranfield"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_beir(tmp_path, HEADER + "q1\ta\t1\nq2\tb\t1\n")


def test_a_text_is_title_space_text_and_an_empty_title_leaves_no_space(folder: Path):
    task = read_beir(folder)
    assert task.corpus == {"a": "Tides The sea rises.", "b": "Snow falls.", "c": "Rain."}
    assert task.queries == {"q1": "why tides", "q2": "what falls"}


def test_ids_that_are_numbers_are_those_of_the_judgements(tmp_path: Path):
    folder = write_beir(tmp_path, HEADER + "7\t1\t1\n", corpus=[{"_id": 1, "text": "one"}])
    (folder / "queries.jsonl").write_text('{"_id": 7, "text": "which"}\n')
    assert read_beir(folder).relevant == {"7": {"1"}}


@pytest.mark.parametrize(
    "qrels",
    [
        HEADER + "q1\ta\t2\nq1\tb\t1\nq2\tb\t1\n",
        HEADER.replace("\t", " ") + "q1 a 2\nq1 b 1\nq2 b 1\n",
        "q1 0 a 2\nq1 0 b 1\nq2 0 b 1\n",
        "q1\t0\ta\t2\r\nq1\t0\tb\t1\r\n\r\nq2\t0\tb\t1\r\n",
    ],
)
def test_judgements_of_beir_and_of_trec_say_the_same(tmp_path: Path, qrels: str):
    task = read_beir(write_beir(tmp_path, qrels))
    assert task.grades == {"q1": {"a": 2, "b": 1}, "q2": {"b": 1}}
    assert task.is_graded


def test_scores_of_zero_or_less_are_not_relevant(tmp_path: Path):
    task = read_beir(write_beir(tmp_path, HEADER + "q1\ta\t1\nq1\tb\t0\nq1\tc\t-1\n"))
    assert task.relevant == {"q1": {"a"}}
    assert not task.is_graded


def test_queries_without_a_relevant_document_are_left_out_and_counted(tmp_path: Path):
    task = read_beir(write_beir(tmp_path, HEADER + "q1\ta\t1\nq2\tb\t0\n"))
    assert list(task.queries) == ["q1"]
    assert task.queries_left_out == 2  # q2, judged in vain, and q3, not judged


def test_judgements_of_what_is_not_there_are_counted(tmp_path: Path):
    qrels = HEADER + "q1\ta\t1\nq1\tgone\t1\nq2\tgone\t0\nq2\tlost\t1\nq9\ta\t1\n"
    task = read_beir(write_beir(tmp_path, qrels))
    assert (task.unknown_queries, task.unknown_documents) == (1, 2)
    # Relevant, though it can't be found: to forget it would flatter the model.
    assert task.relevant["q1"] == {"a", "gone"}


def test_which_judgements_count_when_there_are_several(tmp_path: Path):
    write_beir(tmp_path, HEADER + "q1\ta\t1\n")
    qrels = tmp_path / "qrels"
    qrels.mkdir()
    (qrels / "train.tsv").write_text(HEADER + "q2\ta\t1\n")
    (qrels / "dev.tsv").write_text(HEADER + "q3\ta\t1\n")
    assert list(read_beir(tmp_path).queries) == ["q1"]
    assert list(read_beir(tmp_path, "dev").queries) == ["q3"]
    with pytest.raises(SettingsError, match=r"qrels: has no test\.tsv, but dev, train"):
        read_beir(tmp_path, "test")

    (tmp_path / "qrels.tsv").unlink()
    with pytest.raises(SettingsError, match="qrels: has dev, train: say which with --split"):
        read_beir(tmp_path)
    (qrels / "test.tsv").write_text(HEADER + "q1\tb\t1\n")
    assert read_beir(tmp_path).relevant == {"q1": {"b"}}
    (qrels / "test.tsv").unlink()
    (qrels / "dev.tsv").unlink()
    assert list(read_beir(tmp_path).queries) == ["q2"]


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels.tsv"])
def test_a_missing_file_is_named(folder: Path, name: str):
    (folder / name).unlink()
    with pytest.raises(SettingsError, match=name.replace(".", r"\.")):
        read_beir(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("queries.jsonl", '{"_id": "q1"}', "line 1: lacks 'text'"),
        ("corpus.jsonl", "{", r"line 1: Expecting .* \(column 2\)"),
        ("corpus.jsonl", "", r"corpus\.jsonl: is empty"),
        ("qrels.tsv", HEADER + "q1\ta\n", "line 2: Query id, corpus id and score"),
        ("qrels.tsv", HEADER + "q1\ta\t0\nq9\ta\t1\n", "nothing to score"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said_with_its_line(
    folder: Path, name: str, content: str, message: str
):
    (folder / name).write_text(content)
    with pytest.raises(SettingsError, match=message) as caught:
        read_beir(folder)
    assert str(caught.value).startswith(f"--beir: {folder}")


def test_graded_ndcg_weighs_documents_by_their_grade(tmp_path: Path):
    task = read_beir(write_beir(tmp_path, HEADER + "q1\ta\t3\nq1\tb\t1\nq2\tc\t2\n"))
    rankings = [["b", "c", "a"], ["a", "b"]]
    found = evaluate_rankings(rankings, list(task.queries), task.relevant, dimension=8)
    # (1 / log2(2) + 3 / log2(4)) / (3 / log2(2) + 1 / log2(3)) for q1, and 0 for q2.
    assert graded_ndcg(task, found) == {8: pytest.approx((2.5 / 3.6309297536) / 2, abs=1e-9)}


@pytest.mark.skipif(not CRANFIELD.is_dir(), reason=f"the data set is absent: {CRANFIELD}")
def test_graded_ndcg_on_human_judgements_is_that_of_trec_eval():
    import pytrec_eval

    task = read_beir(CRANFIELD)
    assert task.is_graded
    random = np.random.default_rng(7)
    documents = np.array(list(task.corpus))
    rankings = [
        [*random.permutation(list(grades))[:6], *random.choice(documents, 8, replace=False)]
        for grades in task.grades.values()
    ]
    rankings = [list(dict.fromkeys(random.permutation(ids).tolist())) for ids in rankings]
    found = evaluate_rankings(rankings, list(task.queries), task.relevant, dimension=8)

    def trec_eval(grades: Mapping[str, Mapping[str, float]]) -> float:
        qrels = {query: {d: int(g) for d, g in of.items()} for query, of in grades.items()}
        run = {
            query: {document: 1.0 / place for place, document in enumerate(ids, start=1)}
            for query, ids in zip(task.queries, rankings, strict=True)
        }
        scores = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
        return float(np.mean([values["ndcg_cut_10"] for values in scores.values()]))

    binary = {query: dict.fromkeys(grades, 1.0) for query, grades in task.grades.items()}
    ndcg = found.scores.filter(metric="ndcg", k=10)["score"].item()
    assert ndcg == pytest.approx(trec_eval(binary), abs=1e-6)
    assert graded_ndcg(task, found)[8] == pytest.approx(trec_eval(task.grades), abs=1e-6)
    assert graded_ndcg(task, found)[8] != pytest.approx(ndcg, abs=1e-3)


def write_beir(
    folder: Path, qrels: str, corpus: Sequence[Mapping[str, object]] | None = None
) -> Path:
    """A folder of three queries and, unless others are given, three documents."""
    documents = corpus or [
        {"_id": "a", "title": "Tides", "text": "The sea rises."},
        {"_id": "b", "title": "", "text": "Snow falls."},
        {"_id": "c", "text": "Rain."},
    ]
    queries = {"q1": "why tides", "q2": "what falls", "q3": "is it wet"}
    rows = [{"_id": key, "text": text} for key, text in queries.items()]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, documents)))
    (folder / "queries.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "qrels.tsv").write_text(qrels)
    return folder
