"""The graph as Dagster sees it: a change of it shows here, in review."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from embed_assets import graph
from embed_assets.automation.state import check_settings, code_versions
from embed_assets.comparison import assets as comparison_assets
from embed_assets.definitions import build_definitions, build_resources
from embed_assets.errors import SettingsError
from embed_assets.pairs import assets as pairs_assets
from embed_assets.resources.current_index import note_champion
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import PREFIX, Settings
from embed_assets.tables import TABLES
from embed_assets_tests.rows import pages
from embed_assets_tests.tiny_model import make_tiny_model

HEAVY = {
    "accelerate",
    "altair",
    "datasets",
    "lance",
    "lancedb",
    "mlflow",
    "pymupdf",
    "pymupdf4llm",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
    "vl_convert",
}
# asset: (upstream, group, partitioned by document)
GRAPH = {
    "raw_pdfs": ([], "documents", True),
    "parsed_markdown": (["raw_pdfs"], "documents", True),
    "chunks": (["parsed_markdown"], "documents", True),
    "synthetic_questions": (["chunks"], "questions", True),
    "training_pairs": (["chunks", "synthetic_questions"], "pairs", False),
    "base_eval": (["chunks", "training_pairs"], "evaluation", False),
    "finetuned_model": (["chunks", "training_pairs"], "training", False),
    "comparison": (["base_eval", "finetuned_model"], "comparison", False),
    "chunk_embeddings": (["chunks"], "search", True),
    "search_index": (["base_eval", "chunk_embeddings"], "search", False),
}


@pytest.fixture(autouse=True)
def no_settings_of_the_machine(tmp_path, monkeypatch) -> None:
    for name in os.environ:
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def definitions(tmp_path) -> dg.Definitions:
    return build_definitions(Settings(pdfs=tmp_path, home=tmp_path / "home"))


def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_the_graph_is_this(definitions):
    graph = {
        name: (
            sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            spec.group_name,
            spec.partitions_def is not None,
        )
        for name, spec in specs(definitions).items()
    }
    assert graph == GRAPH


def test_partitioned_assets_share_the_documents_partition_set(definitions):
    names = {
        spec.partitions_def.name
        for spec in specs(definitions).values()
        if isinstance(spec.partitions_def, dg.DynamicPartitionsDefinition)
    }
    assert names == {"documents"}


@pytest.mark.parametrize("name", GRAPH)
def test_every_asset_says_what_it_is_of_what_kind_whose_and_of_which_version(definitions, name):
    spec = specs(definitions)[name]
    assert spec.description
    first, *more = spec.description.strip().split("\n")
    assert first.endswith(".")  # what a node of the graph shows
    assert len(" ".join(more).split(". ")) <= 2
    assert spec.kinds
    assert spec.owners == ["team:retrieval"]
    assert spec.code_version


@pytest.mark.parametrize("name", GRAPH)
def test_every_asset_shows_its_table_and_columns_as_the_warehouse_makes_them(
    definitions: dg.Definitions, name: str
):
    metadata = specs(definitions)[name].metadata
    other = {
        "base_eval": "evaluation_results",
        "finetuned_model": "models",
        "comparison": "evaluation_results",
        "search_index": "search_indexes",
    }
    table = TABLES[other.get(name, name)]
    assert metadata["dagster/table_name"] == f"main.{table.name}"
    # The page of the comparison opens with its verdict.
    schema = metadata["columns" if name == "comparison" else "dagster/column_schema"]
    shown = {column.name: (column.type, column.constraints.nullable) for column in schema.columns}
    assert shown == {key: (column.sql, column.nullable) for key, column in table.columns.items()}
    assert all(column.description for column in schema.columns)


def test_dagster_sees_the_graph_by_which_everything_goes(definitions):
    assert {
        name: (sorted(asset.upstream), asset.stage, asset.partitioned)
        for name, asset in graph.GRAPH.items()
    } == GRAPH
    *chain, embeddings = graph.DOCUMENT_ASSETS
    assert [GRAPH[name][0] for name in chain] == [[], *([name] for name in chain[:-1])]
    assert GRAPH[embeddings][0] == ["chunks"]


def test_the_graph_names_upstream_before_downstream():
    known: set[str] = set()
    for name, asset in graph.GRAPH.items():
        assert set(asset.upstream) <= known
        known.add(name)


def test_two_jobs_divide_the_assets_between_them(definitions):
    selected = {}
    for name in ("ingest", "train"):
        keys = definitions.resolve_job_def(name).asset_layer.selected_asset_keys
        selected[name] = {key.to_user_string() for key in keys}
    assert selected == {
        "ingest": {name for name, row in GRAPH.items() if row[2] or row[1] == "search"},
        "train": {name for name, row in GRAPH.items() if not row[2] and row[1] != "search"},
    }
    assert definitions.resolve_job_def("ingest").partitions_def is not None
    assert definitions.resolve_job_def("train").partitions_def is None


@pytest.mark.parametrize("watch", [True, False])
def test_two_sensors_ask_for_the_two_jobs_and_are_on_where_that_is_set(tmp_path, watch):
    definitions = build_definitions(Settings(home=tmp_path, watch=watch))
    sensors = definitions.get_repository_def().sensor_defs
    assert {s.name: s.job_name for s in sensors} == {"pdf_folder": "ingest", "retraining": "train"}
    assert {s.default_status is dg.DefaultSensorStatus.RUNNING for s in sensors} == {watch}


def test_checks_say_what_is_wrong_and_block_nothing(definitions):
    graph = definitions.get_repository_def().asset_graph
    keys = {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys}
    assert keys == {
        ("parsed_markdown", "document_is_readable"),
        ("training_pairs", "no_leakage"),
        ("training_pairs", "splits_are_filled"),
        ("training_pairs", "documents_arrive"),
        ("training_pairs", "peoples_questions_found"),
        ("training_pairs", "figures_are_fresh"),
        ("comparison", "better_than_base"),
        ("comparison", "became_champion"),
    }
    told = {("training_pairs", name) for name in pairs_assets.CHECKS}
    told |= {("comparison", name) for name in comparison_assets.CHECKS}
    assert told == keys - {("parsed_markdown", "document_is_readable")}, "said where these fail"
    for key in graph.asset_check_keys:
        assert not graph.get_check_spec(key).blocking
        assert graph.get_check_spec(key).description


def test_a_person_decides_about_the_champion_by_two_jobs(definitions):
    chosen = {"promote_version": {"config": {"version": "3"}}}
    dg.validate_run_config(definitions.resolve_job_def("promote"), {"ops": chosen})
    dg.validate_run_config(definitions.resolve_job_def("rollback"), {})
    with pytest.raises(dg.DagsterInvalidConfigError, match="version"):
        dg.validate_run_config(definitions.resolve_job_def("promote"), {})


def test_what_many_runs_would_do_at_once_is_in_pools(definitions):
    pools = {name: definitions.resolve_assets_def(name).op.pool for name in GRAPH}
    pools = {name: pool for name, pool in pools.items() if pool}
    assert pools == {
        "parsed_markdown": "parsing",
        "synthetic_questions": "llm",
        "finetuned_model": "training",
    }


def test_tables_are_compacted_by_a_job(definitions, tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "w.duckdb"))
    text = "the brass valve opens at four bar " * 400
    warehouse.replace("parsed_markdown", pages("a", text))
    warehouse.replace("parsed_markdown", pages("b", "stays"))
    ended = definitions.resolve_job_def("compact").execute_in_process(
        resources={"warehouse": warehouse}
    )
    assert ended.success
    assert b"brass valve" not in Path(warehouse.path).read_bytes()
    assert warehouse.count("parsed_markdown") == 1


def test_definitions_can_be_loaded_and_run(definitions):
    dg.Definitions.validate_loadable(definitions)


def test_a_test_may_replace_a_resource(tmp_path):
    settings = Settings(home=tmp_path)
    mine = build_resources(Settings(home=tmp_path / "mine"))["warehouse"]
    replaced = build_definitions(settings, overrides={"warehouse": mine})
    assert replaced.resources is not None
    assert replaced.resources["warehouse"].path == str(tmp_path / "mine" / "warehouse.duckdb")


# Code versions: what makes an asset stale.


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("model"), limit=64)


def changed(tmp_path: Path, monkeypatch, **environment: str) -> set[str]:
    """Assets whose code version changes with these settings."""
    monkeypatch.setenv("EMBED_ASSETS_HOME", str(tmp_path / "home"))
    before = code_versions(Settings())
    for name, value in environment.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    after = code_versions(Settings())
    assert set(before) == set(after) == set(GRAPH)
    return {name for name in GRAPH if before[name] != after[name]}


def test_another_model_changes_chunks_and_what_uses_the_model(tmp_path, monkeypatch, tiny_model):
    assert changed(tmp_path, monkeypatch, model=str(tiny_model)) == {
        "chunks",
        "training_pairs",
        "base_eval",
        "finetuned_model",
        "chunk_embeddings",
        "search_index",
    }


def test_a_default_that_is_written_out_trains_nothing_anew(tmp_path, monkeypatch):
    assert changed(tmp_path, monkeypatch, learning_rate="6e-5") == set()
    assert changed(tmp_path, monkeypatch, learning_rate="5e-5") == {"finetuned_model"}


def test_the_version_of_chunks_in_dagster_names_the_model_and_its_limit(tmp_path, tiny_model):
    version = specs(build_definitions(Settings(home=tmp_path)))["chunks"].code_version
    assert version == "2, all-MiniLM-L6-v2 tokens, limit 256"
    settings = Settings(home=tmp_path, model=str(tiny_model))
    version = specs(build_definitions(settings))["chunks"].code_version
    assert version is not None
    assert "tokenizer " in version
    assert "limit 64" in version


def test_what_dagster_is_told_of_search_is_the_same_whoever_is_champion(tmp_path, tiny_model):
    settings = Settings(home=tmp_path)
    told, known = [], []
    for champion in (None, "1"):
        if champion:
            shutil.copytree(tiny_model, settings.models / f"v{champion}")
            note_champion(settings.home, champion)
        found = specs(build_definitions(settings))
        told.append([found[name].code_version for name in ("chunk_embeddings", "search_index")])
        known.append(code_versions(settings)["search_index"])
    assert told[0] == told[1]
    assert known[0] != known[1]


def test_the_same_model_under_another_name_changes_nothing(tmp_path, monkeypatch, tiny_model):
    other = "sentence-transformers/all-MiniLM-L6-v2"
    assert changed(tmp_path, monkeypatch, model=other) == set()
    monkeypatch.setenv("EMBED_ASSETS_MODEL", str(tiny_model))
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert changed(tmp_path, monkeypatch, model=str(copy)) == set()


def test_another_model_under_the_name_of_a_baseline_changes_what_measures_it(
    tmp_path, monkeypatch, tiny_model
):
    baseline = shutil.copytree(tiny_model, tmp_path / "baseline")
    monkeypatch.setenv("EMBED_ASSETS_BASELINES", f"bm25,{baseline},openai:m")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert changed(tmp_path, monkeypatch) == set()
    before = code_versions(Settings())
    shutil.copytree(
        make_tiny_model(tmp_path / "other", layers=2, limit=64), baseline, dirs_exist_ok=True
    )
    after = code_versions(Settings())
    assert {name for name in GRAPH if before[name] != after[name]} == {"base_eval"}
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    assert code_versions(Settings())["base_eval"] != after["base_eval"]


@pytest.mark.parametrize("setting", ["epochs", "batch_size", "seed"])
def test_a_setting_of_the_training_changes_the_model_alone(tmp_path, monkeypatch, setting):
    assert changed(tmp_path, monkeypatch, **{setting: "7"}) == {"finetuned_model"}


def test_baselines_change_what_measures_them_alone(tmp_path, monkeypatch):
    assert changed(tmp_path, monkeypatch, baselines=" champion, hybrid, bm25,bm25 ") == set()
    assert changed(tmp_path, monkeypatch, baselines="champion") == {"base_eval"}
    # bm25 and hybrid were left out a line above; what is left out here is the champion.
    assert changed(tmp_path, monkeypatch, baselines="none") == {"comparison"}


def test_prompts_change_what_encodes_with_them(tmp_path, monkeypatch):
    assert changed(tmp_path, monkeypatch, query_prompt="query: ") == {
        "training_pairs",  # near-duplicates are told by the base model's embeddings
        "base_eval",
        "finetuned_model",
        "search_index",
    }


def test_filters_that_need_no_embeddings_don_t_depend_on_the_model(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_FILTERS", "duplicates")
    assert "training_pairs" not in changed(tmp_path, monkeypatch, query_prompt="query: ")


def test_each_filter_changes_what_it_filters_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_FILTERS", "duplicates")
    assert changed(tmp_path, monkeypatch, filters="duplicates,verbatim") == {"synthetic_questions"}
    assert changed(tmp_path, monkeypatch, filters="verbatim") == {"training_pairs"}


def test_the_language_model_and_its_prompt_change_the_questions_alone(tmp_path, monkeypatch):
    assert changed(tmp_path, monkeypatch, questions="openai:m") == {"synthetic_questions"}
    assert changed(tmp_path, monkeypatch, judge="openai:j") == {"synthetic_questions"}
    assert changed(tmp_path, monkeypatch, question_domain="bees") == {"synthetic_questions"}
    assert changed(tmp_path, monkeypatch, llm_concurrency="3", llm_timeout="9") == set()


def test_the_generator_changes_the_questions_alone(tmp_path, monkeypatch):
    assert changed(tmp_path, monkeypatch, questions="none") == {"synthetic_questions"}


def test_people_s_questions_change_the_questions_by_what_they_say(tmp_path, monkeypatch):
    file = tmp_path / "q.jsonl"
    file.write_text(json.dumps({"question": "Why?", "file_name": "a.pdf"}))
    # The pairs too: they report how well each row matched.
    made = {"synthetic_questions", "training_pairs"}
    assert changed(tmp_path, monkeypatch, labelled=str(file)) == made
    file.touch()  # its time alone
    assert changed(tmp_path, monkeypatch) == set()
    before = code_versions(Settings())
    file.write_text(json.dumps({"question": "How?", "file_name": "a.pdf"}))
    assert code_versions(Settings())["synthetic_questions"] != before["synthetic_questions"]


def test_where_things_lie_and_how_many_work_on_them_changes_nothing(tmp_path, monkeypatch):
    assert (
        changed(tmp_path, monkeypatch, pdfs=str(tmp_path), workers="3", parse_timeout="9") == set()
    )


def test_a_model_that_is_not_there_is_an_error_of_the_command_and_not_of_the_definitions(tmp_path):
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home", model=str(tmp_path / "nowhere"))
    dg.Definitions.validate_loadable(build_definitions(settings))
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    with pytest.raises(SettingsError, match="EMBED_ASSETS_MODEL"):
        check_settings(settings, Warehouse.of(settings))


# What loading costs.

LOAD = """
import json, sys
import embed_assets.definitions, embed_assets.command.cli, embed_assets.command.pipeline
loaded = {name.partition(".")[0] for name in sys.modules}
before = sorted(loaded)
definitions = embed_assets.definitions.defs()
loaded = {name.partition(".")[0] for name in sys.modules}
print(json.dumps([before, sorted(loaded), len(list(definitions.resolve_all_asset_specs()))]))
"""


def test_loading_the_definitions_and_the_command_imports_nothing_heavy(tmp_path):
    environment = {**os.environ, "EMBED_ASSETS_HOME": str(tmp_path / "home")}
    said = subprocess.run(
        [sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=True
    )
    imported, loaded, assets = json.loads(said.stdout)
    assert assets == len(GRAPH)
    assert "dagster" in imported  # else this test looks at nothing
    assert HEAVY & {*imported, *loaded} == set()
    assert not (tmp_path / "home").exists()  # loading makes no state


def test_importing_the_definitions_asks_for_no_settings(tmp_path):
    environment = {**os.environ, "EMBED_ASSETS_MODEL": str(tmp_path / "nowhere")}
    code = "import embed_assets.definitions"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
