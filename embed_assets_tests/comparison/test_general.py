"""The general set: what it holds, how base and tuned are measured on it, and what is refused."""

import json
import re
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import polars as pl
import pytest

from embed_assets.automation.state import check_settings, code_versions
from embed_assets.command.scores import score_on_beir
from embed_assets.comparison.general import (
    GENERAL,
    GeneralFigures,
    general_task,
    general_version,
    measure_general,
)
from embed_assets.errors import SettingsError
from embed_assets.evaluation.baselines import chosen_baselines, find_baseline
from embed_assets.evaluation.beir import read_beir
from embed_assets.evaluation.scoring import full_ndcg, measured, score_encoder
from embed_assets.models.encoder import LocalEncoder
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets_tests.tiny_model import make_tiny_model

SHIPPED = Path(__file__).parents[2] / "data" / "general"
HEADER = "query-id\tcorpus-id\tscore\n"
CORPUS = {
    "a": "the valve opens when the pressure falls",
    "b": "calibration of the sensor is on page two",
    "c": "the warranty ends when notice is not in the contract",
    "d": "torque for each bolt of the engine",
}
QUERIES = {"q1": "when is the valve open", "q2": "sensor page", "q3": "bolt torque table"}
QRELS = HEADER + "q1\ta\t1\nq1\tc\t1\nq2\tb\t1\nq3\td\t1\n"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Folders of two models that rank differently."""
    folders = (tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("tuned"))
    base, tuned = (
        make_tiny_model(folder, size) for folder, size in zip(folders, (32, 4), strict=True)
    )
    return str(base), str(tuned)


@pytest.fixture
def settings(tmp_path: Path, models: tuple[str, str]) -> Settings:
    return Settings(
        home=tmp_path / "home",
        model=models[0],
        precision="fp32",
        baselines="none",
        general=str(write_general(tmp_path / "general")),
    )


@pytest.fixture
def warehouse(settings: Settings) -> Warehouse:
    return Warehouse.of(settings)


def write_general(
    folder: Path, corpus: Mapping[str, str] = CORPUS, qrels: str | None = QRELS
) -> Path:
    folder.mkdir(exist_ok=True)
    for name, texts in (("corpus", corpus), ("queries", QUERIES)):
        rows = [json.dumps({"_id": key, "text": text}) for key, text in texts.items()]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    if qrels is not None:
        (folder / "qrels.tsv").write_text(qrels, encoding="utf-8")
    return folder


def measure(
    warehouse: Warehouse, settings: Settings, models: tuple[str, str], run_id: str = "run"
) -> GeneralFigures | None:
    base, tuned = (find_baseline(warehouse, settings, model) for model in models)
    return measure_general(warehouse, settings, base, tuned, run_id)


def texts_encoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Texts that any model encodes from now on."""
    encode, seen = LocalEncoder.encode, []

    def note(self: LocalEncoder, texts: list[str], *rest: object) -> object:
        seen.extend(texts)
        return encode(self, texts, *rest)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(LocalEncoder, "encode", note)
    return seen


# The set that comes with the project.


def test_every_query_of_the_shipped_set_has_an_answer_that_is_there():
    task = read_beir(SHIPPED)
    assert (task.queries_left_out, task.unknown_queries, task.unknown_documents) == (0, 0, 0)
    assert len(task.corpus) >= 200
    assert 200 <= len(task.queries) <= 250
    assert len(set(task.queries.values())) == len(task.queries)
    answers = {document for relevant in task.relevant.values() for document in relevant}
    assert len(answers) > 0.9 * len(task.corpus), "most passages answer something"


def test_the_shipped_passages_are_of_like_length_and_all_different():
    corpus = read_beir(SHIPPED).corpus
    words = {key: re.findall(r"\w+", text.lower()) for key, text in corpus.items()}
    assert all(40 <= len(found) <= 90 for found in words.values())
    bags = {key: set(found) for key, found in words.items()}
    alike = [
        (one, other)
        for one, other in combinations(bags, 2)
        if len(bags[one] & bags[other]) > 0.4 * len(bags[one] | bags[other])
    ]
    assert alike == []


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl"])
def test_the_shipped_texts_are_plain_lines_of_utf_8(name: str):
    for line in (SHIPPED / name).read_bytes().decode("utf-8").splitlines():
        text = json.loads(line)["text"]
        assert text.isprintable()
        assert text == " ".join(text.split())


def test_the_base_model_finds_most_answers_of_the_shipped_set_and_can_lose_some(tmp_path: Path):
    settings = Settings(home=tmp_path, precision="fp32")
    task = general_task(settings)
    assert task is not None
    encoder = find_baseline(Warehouse.of(settings), settings, settings.model)
    assert 0.7 < full_ndcg(score_encoder(task, encoder).scores)[GENERAL] < 0.95


# Measuring.


def test_both_models_are_scored_as_evaluate_scores_them(warehouse, settings, models):
    figures = measure(warehouse, settings, models)
    base, tuned = (
        next(iter(score_on_beir(settings, settings.general_folder, model)["metrics"].values()))
        for model in models
    )
    assert figures is not None
    assert (figures.base, figures.tuned) == pytest.approx((base, tuned))
    assert figures.questions == len(QUERIES)
    assert base != tuned


def test_a_model_is_measured_on_the_same_questions_once(warehouse, settings, models, monkeypatch):
    seen = texts_encoded(monkeypatch)
    first = measure(warehouse, settings, models)
    assert sorted(set(seen)) == sorted([*CORPUS.values(), *QUERIES.values()])
    seen.clear()
    warehouse.replace("embeddings", warehouse.read("SELECT * FROM embeddings LIMIT 0"))
    assert measure(warehouse, settings, models, run_id="another") == first
    assert seen == []


def test_another_text_under_the_same_id_is_measured_anew(warehouse, settings, models):
    first = measure(warehouse, settings, models)
    texts = dict(zip(CORPUS, reversed(CORPUS.values()), strict=True))
    write_general(settings.general_folder, texts)
    assert measure(warehouse, settings, models) != first


def test_general_figures_stand_apart_from_those_of_a_comparison(warehouse, settings, models):
    task = general_task(settings)
    compared = task and measured(
        warehouse, task, find_baseline(warehouse, settings, models[0]), run_id="run", model="base"
    )
    before = warehouse.read("SELECT * FROM evaluation_results ORDER BY ALL")
    measure(warehouse, settings, models)
    after = warehouse.read("SELECT * FROM evaluation_results ORDER BY ALL")
    assert compared is not None
    assert after.filter(pl.col("model") == "base").equals(before)
    assert set(after["model"]) == {"base", "base, general", "tuned, general"}


def test_no_baseline_can_be_called_as_the_models_on_general_questions_are():
    names = chosen_baselines(Settings(baselines="./base, general,./tuned, general"))
    assert names == ("./base", "general", "./tuned")


def test_nothing_is_measured_where_no_general_questions_are_wanted(warehouse, settings, models):
    settings = settings.changed({"general": "none"})
    assert measure(warehouse, settings, models) is None
    assert warehouse.count("evaluations") == 0


def test_equal_texts_are_one_entry_and_an_absent_one_is_never_found(tmp_path: Path, settings):
    twice = CORPUS | {"e": CORPUS["b"]}
    folder = write_general(tmp_path / "twice", twice, QRELS + "q2\te\t1\nq3\tgone\t1\n")
    task = general_task(settings.changed({"general": str(folder)}))
    assert task is not None
    assert sorted(task.texts.values()) == sorted(CORPUS.values())
    assert {query: len(answers) for query, answers in task.relevant.items()} == {
        "q1": 2,
        "q2": 1,
        "q3": 2,
    }


# What is refused.


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"qrels": None}, "has neither qrels.tsv nor qrels/test.tsv"),
        ({"corpus": {}}, "corpus.jsonl: is empty"),
        ({"qrels": HEADER}, "qrels.tsv: holds no rows"),
        ({"qrels": HEADER + "q1\ta\tmuch\n"}, "line 2: Query id, corpus id and score are wanted"),
    ],
)
def test_a_broken_folder_is_refused_before_any_work_and_the_setting_is_named(
    tmp_path: Path, warehouse, settings, models, broken, reason
):
    folder = write_general(tmp_path / "broken", **broken)
    settings = settings.changed({"general": str(folder)})
    for work in (
        lambda: check_settings(settings, warehouse),
        lambda: measure(warehouse, settings, models),
    ):
        with pytest.raises(SettingsError) as error:
            work()
        message = str(error.value)
        assert message.startswith("EMBED_ASSETS_GENERAL: ")
        assert reason in message
        assert message.endswith("Set it to a BEIR folder, or to none.")
    assert warehouse.count("evaluations") == 0


def test_a_folder_that_is_not_there_is_refused_but_definitions_load(tmp_path, warehouse, settings):
    settings = settings.changed({"general": str(tmp_path / "nowhere")})
    with pytest.raises(SettingsError, match=r"EMBED_ASSETS_GENERAL: .*nowhere/corpus\.jsonl"):
        check_settings(settings, warehouse)
    missing = code_versions(settings)["comparison"]
    write_general(tmp_path / "nowhere")
    check_settings(settings, warehouse)
    assert code_versions(settings)["comparison"] != missing


# Its version.


def test_what_is_asked_and_searched_makes_the_version_and_nothing_else_does(tmp_path, settings):
    before, folder = general_version(settings), settings.general_folder
    (folder / "README.md").write_text("About it.", encoding="utf-8")
    (folder / "corpus.jsonl").touch()
    copy = write_general(tmp_path / "copy")
    assert general_version(settings) == before
    assert general_version(settings.changed({"general": str(copy)})) == before

    versions = {before}
    write_general(folder, qrels=HEADER + "q1\tb\t1\nq2\tb\t1\nq3\td\t1\n")
    versions.add(general_version(settings))
    write_general(folder, CORPUS | {"e": "the float of the pump"})
    versions.add(general_version(settings))
    assert len(versions) == 3


def test_how_much_may_be_lost_counts_only_where_general_questions_are_wanted(settings):
    def version(**changes: object) -> str:
        return code_versions(settings.changed(changes))["comparison"]

    assert version() != version(general_loss=0.5)
    assert version(general="none") == version(general="none", general_loss=0.5)
