"""Every question of a document in one frame: the generator's and people's."""

import hashlib
from dataclasses import replace

import polars as pl
import pytest

from embed_assets.errors import SettingsError
from embed_assets.questions.generation import check_generator, generate_questions
from embed_assets.questions.labelled.files import LabelledQuestion
from embed_assets.questions.statuses import KEPT, REJECTED_BY_REVIEWER
from embed_assets.questions.written.writing import Writing
from embed_assets.resources.answers import AnswerStore
from embed_assets.settings import Settings
from embed_assets.tables import TABLES

TEXTS = [
    "## Filling the chamber\n\nClose the lower gates completely before any upper paddle is raised. "
    "Wind the ground paddles halfway first, because a sudden inflow throws a short boat.",
    "## Maintaining the gates\n\nThe oak mitre posts are inspected by divers every fifth winter. "
    "A pintle bearing is the pivot on which a gate turns. Grease the heel collars each month.",
]
PATHS = {"lock-1": "manuals/lock.pdf", "copy-2": "copy of lock.pdf"}
QUESTION = LabelledQuestion(
    question="How often do divers look at the posts?",
    file_name="lock.pdf",
    page=2,
    evidence_text="inspected by divers every fifth winter",
    answer=None,
    purpose="test",
    answerable=True,
    source="q.jsonl",
)


def chunks(*document_ids: str) -> pl.DataFrame:
    """The same two chunks in each of these documents."""
    rows = [
        {
            "document_id": document_id,
            "chunk_index": index,
            "chunk_id": hashlib.md5(text.encode()).hexdigest(),
            "chunk_text": text,
            "heading_path": text.splitlines()[0].strip("# "),
            "page_start": index + 1,
            "page_end": index + 1,
            "token_count": 30,
            "file_name": PATHS[document_id].rpartition("/")[2],
        }
        for document_id in document_ids
        for index, text in enumerate(TEXTS)
    ]
    return pl.DataFrame(rows, schema=TABLES["chunks"].schema)


@pytest.fixture
def generate(tmp_path):
    def run(*document_ids: str, generator: str = "extractive", labelled=(QUESTION,), frame=None):
        frame = chunks(*document_ids) if frame is None else frame
        paths = {key: PATHS[key] for key in document_ids}
        settings = Settings(questions=generator, home=tmp_path)
        answers = AnswerStore(path=str(settings.answers))
        return generate_questions(frame, labelled, paths, Writing(settings, answers, "s", print))

    return run


def test_people_s_questions_stand_beside_the_generators(generate):
    questions = generate("lock-1")
    assert TABLES["synthetic_questions"].conform(questions).equals(questions)
    assert questions.filter(generator="labelled:q.jsonl")["purpose"].to_list() == ["test"]
    made = questions.filter(generator="extractive")
    assert made.height >= 3
    assert set(made["purpose"]) == {"train"}
    assert set(made["status"]) == {"KEPT"}
    assert made.filter(pl.col("relevant_chunk_ids").list.first() != pl.col("chunk_id")).is_empty()


def test_no_two_questions_have_one_id(generate):
    questions = generate(
        "lock-1", "copy-2", labelled=[QUESTION, replace(QUESTION, source="b.jsonl")]
    )
    assert questions["question_id"].n_unique() == questions.height
    assert set(questions["document_id"]) == {"lock-1", "copy-2"}


def test_a_question_written_twice_is_one_question(generate):
    assert generate("lock-1", generator="none", labelled=[QUESTION, QUESTION]).height == 1


def test_a_question_given_for_training_and_for_testing_is_for_testing(generate):
    twice = [replace(QUESTION, purpose="train"), QUESTION]
    for labelled in (twice, twice[::-1]):
        questions = generate("lock-1", generator="none", labelled=labelled)
        assert questions["purpose"].to_list() == ["test"]


def test_a_machines_question_that_a_reviewer_rejected_does_not_train(generate):
    made = generate("lock-1", labelled=())
    rejected = made["question"][0]
    texts = dict(chunks("lock-1").select("chunk_id", "chunk_text").iter_rows())
    verdict = replace(
        QUESTION,
        question=rejected,
        purpose="train",
        page=None,
        evidence_text=None,
        chunk_texts=(texts[made["chunk_id"][0]],),
        dropped=REJECTED_BY_REVIEWER,
    )
    again = generate("lock-1", labelled=[verdict])
    assert set(again.filter(question=rejected)["status"]) == {REJECTED_BY_REVIEWER}
    assert again.filter(status=KEPT).height == made.height - 1


def test_a_question_keeps_its_id_when_it_is_made_again_and_when_documents_arrive(generate):
    alone, again, together = generate("lock-1"), generate("lock-1"), generate("copy-2", "lock-1")
    assert alone.drop("created_at").equals(again.drop("created_at"))
    assert (alone["created_at"] <= again["created_at"]).all()
    ours = together.filter(document_id="lock-1")
    assert ours["question_id"].sort().equals(alone["question_id"].sort())


def test_an_id_is_that_which_warehouses_already_hold(generate):
    [question_id] = generate("lock-1", generator="none")["question_id"]
    chunk_id = hashlib.md5(TEXTS[1].encode()).hexdigest()
    identity = "\x1f".join(["lock-1", chunk_id, "labelled:q.jsonl", QUESTION.question])
    assert question_id == hashlib.sha256(identity.encode()).hexdigest()[:20]


def test_none_gives_only_the_labelled(generate):
    questions = generate("lock-1", generator="none")
    assert questions["question"].to_list() == [QUESTION.question]
    assert TABLES["synthetic_questions"].conform(questions).height == 1


@pytest.mark.parametrize("generator", ["extractive", "openai:m", "huggingface:m", "none"])
def test_without_chunks_the_labelled_are_still_there_to_say_so(generate, monkeypatch, generator):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    questions = generate("lock-1", generator=generator, frame=TABLES["chunks"].empty())
    assert questions["status"].to_list() == ["EVIDENCE_NOT_FOUND"]


def test_no_documents_give_no_questions(generate):
    questions = generate(frame=TABLES["chunks"].empty())
    assert questions.equals(TABLES["synthetic_questions"].empty())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("questions", "oracle:delphi"),
        ("questions", "openai:"),
        ("questions", ""),
        ("judge", "extractive"),
        ("judge", "openai"),
        ("judge", "huggingface:m"),
    ],
)
def test_a_generator_that_does_not_exist_is_named_before_any_work(tmp_path, name, value):
    settings = Settings(**{name: value, "home": tmp_path})
    variable = f"EMBED_ASSETS_{name.upper()}"
    with pytest.raises(SettingsError, match=f"{variable}: no generator '{value}'"):
        check_generator(settings)


@pytest.mark.parametrize("value", ["extractive", "none", "openai:m", "huggingface:m"])
def test_each_generator_may_be_named(tmp_path, monkeypatch, value):
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    judge = value if value.startswith("openai:") else ""
    check_generator(Settings(questions=value, judge=judge, home=tmp_path))


def test_a_limit_on_money_needs_prices(tmp_path):
    with pytest.raises(SettingsError, match="EMBED_ASSETS_LLM_COST_BUDGET"):
        check_generator(Settings(llm_cost_budget=5, home=tmp_path))
    check_generator(Settings(llm_cost_budget=5, llm_output_price=1, home=tmp_path))
