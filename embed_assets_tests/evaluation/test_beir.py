"""BEIR folders: what is read, what is counted, what is refused, and graded figures."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from embed_assets.errors import SettingsError
from embed_assets.evaluation.beir import graded_ndcg, read_beir
from embed_assets.evaluation.retrieval import evaluate, evaluate_rankings

JUDGED = [("q1", "a", 1), ("q2", "b", 1)]
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
        "query\tdoc\trelevance\nq1\ta\t2\nq1\tb\t1\nq2\tb\t1\n",
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


def test_bad_rows_are_listed_and_the_others_taken(folder: Path):
    corpus = (folder / "corpus.jsonl").read_text()
    (folder / "corpus.jsonl").write_text(
        corpus + '\n{"_id": "a", "text": "again"}\n{\n{"_id": "d"}'
    )
    queries = (folder / "queries.jsonl").read_text()
    (folder / "queries.jsonl").write_text(queries + '\n{"_id": "q4", "text": null}')
    (folder / "qrels.tsv").write_text(HEADER + "q1\ta\t1\nq1\ta\t2\nq2\tb\nq2\tb\tinf\nq2\tb\t1\n")
    task = read_beir(folder)
    assert task.corpus["a"] == "Tides The sea rises."
    assert task.grades == {"q1": {"a": 1}, "q2": {"b": 1}}
    assert [(bad.file.name, bad.place, bad.reason.partition(";")[0]) for bad in task.bad_rows] == [
        ("corpus.jsonl", "line 4", "_id 'a' is there twice"),
        ("corpus.jsonl", "line 5", "Expecting property name enclosed in double quotes (column 2)"),
        ("corpus.jsonl", "line 6", "lacks 'text'"),
        ("queries.jsonl", "line 4", "text is empty"),
        ("qrels.tsv", "line 3", "query q1 and document a have another score above, which counts"),
        ("qrels.tsv", "line 4", "Query id, corpus id and score are wanted"),
        ("qrels.tsv", "line 5", "Query id, corpus id and score are wanted"),
    ]


@pytest.mark.parametrize("layout", ["gz", "zst", "parquet", "mteb"])
def test_a_folder_may_be_as_the_hub_has_it(folder: Path, layout: str):
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = read_beir(folder)
    rows = [dict(zip(("query-id", "corpus-id", "score"), row, strict=True)) for row in JUDGED]
    (folder / "qrels").mkdir()
    for part in ("corpus", "queries"):
        lines = (folder / f"{part}.jsonl").read_bytes()
        (folder / f"{part}.jsonl").unlink()
        if layout == "gz":
            (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress(lines))
        elif layout == "zst":
            packed = pa.compress(lines, codec="zstd", asbytes=True)
            (folder / f"{part}.jsonl.zst").write_bytes(packed)
        else:
            table = pa.Table.from_pylist(
                [{"title": "", **json.loads(x)} for x in lines.splitlines()]
            )
            (folder / part).mkdir()
            for shard, some in enumerate((table[:1], table[1:])):
                pq.write_table(some, folder / part / f"{part}-0000{shard}-of-00002.parquet")
    qrels = (folder / "qrels.tsv").read_bytes()
    (folder / "qrels.tsv").unlink()
    if layout == "parquet":
        for shard, some in enumerate((rows[:1], rows[1:])):
            pq.write_table(
                pa.Table.from_pylist(some), folder / f"qrels/test-0000{shard}-of-00002.parquet"
            )
    elif layout == "mteb":
        (folder / "qrels/test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    else:
        (folder / "qrels/dev.tsv.gz").write_bytes(gzip.compress(qrels))
    task = read_beir(folder)
    assert (task.corpus, task.queries, task.grades) == (
        wanted.corpus,
        wanted.queries,
        wanted.grades,
    )
    assert task.bad_rows == ()


def test_a_querys_own_document_is_no_result_unless_it_is_judged_relevant(tmp_path: Path):
    corpus = [{"_id": key, "text": key} for key in ("q1", "q2", "a")]
    task = read_beir(write_beir(tmp_path, HEADER + "q1\ta\t1\nq2\tq2\t1\nq3\ta\t1\n", corpus))
    assert task.own == {"q1": "q1"}


def test_without_own_documents_figures_are_those_of_beir():
    """BEIR's `EvaluateRetrieval.evaluate` drops results whose id is the query's."""
    import pytrec_eval

    random = np.random.default_rng(3)
    ids = [f"d{number}" for number in range(150)]
    queries = ids[:20]
    vectors = random.normal(size=(150, 8))
    relevant = {
        query: set(random.choice([i for i in ids if i != query], 5, replace=False).tolist())
        for query in queries
    }
    own = {query: query for query in queries}
    found = evaluate(vectors[:20], vectors, queries, ids, relevant, [8], own=own)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    run = {
        query: {
            document: float(cosine)
            for document, cosine in zip(ids, unit @ unit[place], strict=True)
            if document != query
        }
        for place, query in enumerate(queries)
    }
    qrels = {query: dict.fromkeys(documents, 1) for query, documents in relevant.items()}
    measures = {"ndcg_cut.10", "map_cut.100", "recall.10"}
    scores = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run).values()

    def trec_eval(measure: str) -> float:
        return float(np.mean([values[measure] for values in scores]))

    def ours(metric: str, k: int) -> float:
        return found.scores.filter(metric=metric, k=k)["score"].item()

    assert ours("ndcg", 10) == pytest.approx(trec_eval("ndcg_cut_10"), abs=1e-6)
    assert ours("map", 100) == pytest.approx(trec_eval("map_cut_100"), abs=1e-6)
    assert ours("recall", 10) == pytest.approx(trec_eval("recall_10"), abs=1e-6)
    assert all(
        query not in top for query, top in found.queries.select("question_id", "top_ids").rows()
    )


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
