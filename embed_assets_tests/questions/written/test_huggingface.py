"""Models on this machine really generate, whichever sort they are."""

import polars as pl
import pytest

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.questions.statuses import KEPT, UNREADABLE
from embed_assets.questions.written.huggingface import LocalWriter
from embed_assets.questions.written.writing import Writing, written_questions
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.causes import Cause
from embed_assets.settings import Settings
from embed_assets_tests.in_turn import InTurn
from embed_assets_tests.machines import H100, PLAIN, T4, WITH_BF16, with_gpus
from embed_assets_tests.questions.written.test_writing import chunks
from embed_assets_tests.tiny_llm import QUESTION, make_tiny_chat_model, make_tiny_doc2query


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return make_tiny_chat_model(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def doc2query(tmp_path_factory):
    return make_tiny_doc2query(tmp_path_factory.mktemp("doc2query"))


@pytest.fixture
def ask(tmp_path):
    template = tmp_path / "short.jinja"
    template.write_text("Ask {{ n }} questions.")

    def run(model, **settings) -> pl.DataFrame:
        values = {
            "home": tmp_path,
            "questions": f"huggingface:{model}",
            "question_prompt": template,
            "llm_concurrency": 2,
            "llm_max_tokens": 200,
            "llm_temperature": 0.0,
        }
        answers = AnswerStore(path=str(tmp_path / "answers.sqlite"))
        writing = Writing(Settings(**(values | settings)), answers, "session", print)
        return written_questions(chunks(5), writing)

    return run


def test_a_chat_model_gets_the_prompt_and_its_json_is_read(ask, chat_model):
    rows = ask(chat_model)
    assert rows["question"].to_list() == [QUESTION] * 5
    assert set(rows["status"]) == {KEPT}
    assert set(rows["answer"]) == {"two metres"}
    assert rows["chunk_id"].n_unique() == 5
    assert (rows["input_tokens"] > 20).all()
    assert (rows["output_tokens"] > 5).all()


def test_an_encoder_decoder_model_asks_of_the_passage(ask, doc2query):
    rows = ask(doc2query, questions_per_chunk=1)
    assert rows["question"].to_list() == [QUESTION] * 5
    assert set(rows["generator"]) == {f"huggingface:{doc2query}"}


def test_several_questions_are_drawn_from_an_encoder_decoder_model(ask, doc2query):
    rows = ask(doc2query, questions_per_chunk=3, llm_temperature=1.5)
    per_chunk = rows.filter(status=KEPT).group_by("chunk_id").len()["len"]
    assert 1 <= per_chunk.min() <= per_chunk.max() <= 3


def test_a_model_without_a_chat_template_continues_the_passage(ask, chat_model, tmp_path):
    import shutil

    plain = tmp_path / "plain"
    shutil.copytree(chat_model, plain)
    (plain / "chat_template.jinja").unlink()
    rows = ask(plain, questions_per_chunk=1)
    assert rows.height == 5
    assert set(rows["status"]) <= {KEPT, UNREADABLE}
    assert rows["output_tokens"].sum() > 0


def test_what_is_known_is_not_generated_again(ask, chat_model, monkeypatch):
    first = ask(chat_model)
    monkeypatch.setattr(LocalWriter, "_generate", None)
    assert ask(chat_model).equals(first)


def test_models_on_a_ray_cluster_write_the_same(ask, chat_model, monkeypatch, tmp_path):
    here = ask(chat_model)
    (tmp_path / "answers.sqlite").unlink()
    models = InTurn()
    monkeypatch.setattr("embed_assets.resources.ray_workers.ray_models", models)
    there = ask(chat_model, engine="ray")
    assert there.drop("created_at").equals(here.drop("created_at"))
    assert [len(batch) for _, batch in models.items] == [2, 2, 1]
    assert models.most_items == 3
    assert ask(chat_model, engine="ray").equals(there)
    assert len(models.items) == 3, "what is known is not asked again, and needs no cluster"


def test_all_batches_are_answered_where_there_are_more_than_models(ask, chat_model, monkeypatch):
    models = InTurn()
    monkeypatch.setattr("embed_assets.resources.ray_workers.ray_models", models)
    monkeypatch.setattr("embed_assets.questions.written.huggingface.BATCHES_SORTED", 1)
    rows = ask(chat_model, engine="ray", llm_concurrency=1)
    assert rows["question"].to_list() == [QUESTION] * 5
    assert len(models.items) == 5


def test_a_model_that_fails_on_a_ray_cluster_ends_the_writing(ask, chat_model, monkeypatch):
    fails = InTurn(lambda number: Cause.PROCESS_ENDED if number else None)
    monkeypatch.setattr("embed_assets.resources.ray_workers.ray_models", fails)
    with pytest.raises(ProjectError, match="failed: it says so"):
        ask(chat_model, engine="ray")
    goes_on = InTurn()
    monkeypatch.setattr("embed_assets.resources.ray_workers.ray_models", goes_on)
    assert ask(chat_model, engine="ray")["question"].to_list() == [QUESTION] * 5
    assert len(goes_on.items) == 2, "what was answered before is kept"


@pytest.mark.parametrize(
    ("machine", "device", "precision"),
    [
        (PLAIN, "cpu", "float32"),
        (WITH_BF16, "cpu", "float32"),
        (with_gpus(H100), "cuda", "bfloat16"),
        (with_gpus(T4), "cuda", "bfloat16"),
    ],
    ids=["CPU", "CPU with bf16", "GPU", "GPU that emulates bf16"],
)
def test_a_gpu_writes_in_bf16_which_takes_half_the_memory(
    chat_model, monkeypatch, machine, device, precision
):
    from transformers import AutoModelForCausalLM

    asked = {}
    load = AutoModelForCausalLM.from_pretrained
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda name, **options: asked.update(options) or load(name),
    )
    monkeypatch.setattr("embed_assets.questions.written.huggingface.this_machine", lambda: machine)
    assert LocalWriter(str(chat_model), Settings(), 0.0)._loaded[2] == "chat"
    assert (asked["device_map"], str(asked["dtype"])) == (device, f"torch.{precision}")


def test_a_model_that_isnt_there_is_named(ask, tmp_path):
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_QUESTIONS: huggingface:.*nowhere"):
        ask(tmp_path / "nowhere")
