"""The programs in examples/ run as they stand, on a model of a second's making."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

import embed_assets
from embed_assets_tests.tiny_model import make_tiny_model

REPOSITORY = Path(embed_assets.__file__).parents[1]
EXAMPLES = REPOSITORY / "examples"
SAMPLE = REPOSITORY / "data" / "sample"

pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the package alone is installed")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    pump = "# Pump\n\nthe pressure of the pump valve is in the table\n\na reading of the sensor"
    (folder / "pump.md").write_text(pump, encoding="utf-8")
    (folder / "bolt.txt").write_text("the torque of the engine bolt", encoding="utf-8")
    return folder


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_paragraph_that_repeats_the_question_is_the_best(model, texts, capsys):
    files = [str(file) for file in sorted(texts.iterdir())]
    question = "the torque of the engine bolt"
    example("encode").main([model, question, *files, "--dimension", "16"])
    best, *others = capsys.readouterr().out.splitlines()
    assert best == f"1.000  {question}"
    assert len(others) == 2


def test_questions_that_repeat_their_text_score_one(model, texts, tmp_path, capsys):
    rows = [
        {"question": "the torque of the engine bolt", "file_name": "bolt.pdf"},
        {"question": "an answer that no file has", "file_name": "gone.pdf"},
    ]
    questions = tmp_path / "questions.jsonl"
    questions.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    example("score_questions").main([model, str(texts), str(questions)])
    assert capsys.readouterr().out == "NDCG@10 at   32 dimensions: 1.0000\n"


def test_a_pdf_answers_with_its_pages_and_headings(model, capsys):
    pdf = SAMPLE / "h1-sunset-notice-and-conversion.pdf"
    example("ask_pdf").main([model, str(pdf), "when does the warranty end?"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all("page" in line for line in lines[::2])


def test_every_example_is_in_the_list_of_examples_and_in_this_test():
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    names = {file.stem for file in EXAMPLES.glob("*.py")}
    tested = Path(__file__).read_text(encoding="utf-8")
    assert names == {name for name in names if f"]({name}.py)" in listed}
    assert names == {name for name in names if f'example("{name}")' in tested}
