"""Exported questions are read back as the same questions on the same chunks."""

import json
import os
from pathlib import Path

import polars as pl
import pytest

from embed_assets.errors import ProjectError, SettingsError
from embed_assets.questions.export import export_questions
from embed_assets.questions.generation import generate_questions
from embed_assets.questions.labelled.files import LabelledQuestion, read_labelled
from embed_assets.questions.written.writing import Writing
from embed_assets.resources.answers import AnswerStore
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.tables import TABLES
from embed_assets_tests.hostile import HOSTILE
from embed_assets_tests.questions.labelled.test_evidence import asked

PATHS = {"rig-1": "rig.pdf", "sub-2": "sub/rig.pdf"}
TEXTS = {
    "rig-1": [
        "The rig may run alone for five days in a row at most.\n\nThen it must rest.",
        "## Bloom\n\nBloom takes hold on the tines when the pike hangs in the light.",
        "**Bloom** takes hold on the tines when the pike hangs in the light: bloom!",
        "|---|---|",
    ],
    "sub-2": ["Close both gates first. Then it must rest."],
}
QUESTIONS = [
    asked(question="How long?", page=1, evidence_text="alone for five days", answer="Five."),
    asked(question="What of the light?", evidence_text="when the pike hangs in the light"),
    asked(question="Anything?", file_name="rig.pdf"),
    asked(question="And then?", chunk_texts=("Then it must rest.",), file_name=None),
    asked(question="Rules?", chunk_texts=("|---|---|",), file_name="rig.pdf", purpose="train"),
    asked(question="Any wine?", evidence_text="the treasurer keeps the wine in the cellar"),
    asked(question="Rest?", chunk_texts=(TEXTS["rig-1"][0], TEXTS["rig-1"][1])),
    asked(question="Who built it?", answerable=False),
    asked(question="Is it “good”?\nReally?", dropped="JUDGED_POOR"),
    asked(question="Anything to learn?", purpose="train"),
]
SAME = ["document_id", "question", "chunk_id", "relevant_chunk_ids", "status", "purpose", "answer"]


def chunks() -> pl.DataFrame:
    rows = [
        {
            "document_id": document_id,
            "chunk_index": index,
            "chunk_id": f"{document_id}:{index}",
            "chunk_text": text,
            "heading_path": "",
            "page_start": index + 1,
            "page_end": index + 1,
            "token_count": 20,
            "file_name": "rig.pdf",
        }
        for document_id, texts in TEXTS.items()
        for index, text in enumerate(texts)
    ]
    return pl.DataFrame(rows, schema=TABLES["chunks"].schema)


def generate(labelled: list[LabelledQuestion], generator: str = "none") -> pl.DataFrame:
    settings = Settings(questions=generator)
    writing = Writing(settings, AnswerStore(path=str(settings.answers)), "s", print)
    return generate_questions(chunks(), labelled, PATHS, writing)


@pytest.fixture
def settings(tmp_path) -> Settings:
    """Of a home whose warehouse holds QUESTIONS and those of the extractive generator."""
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home", labelled="")
    settings.home.mkdir()
    warehouse = Warehouse.of(settings)
    pdfs = [
        dict.fromkeys(TABLES["raw_pdfs"].columns)
        | {
            "document_id": document_id,
            "path": path,
            "file_name": "rig.pdf",
            "content": b"",
            "sha256": "",
            "size_bytes": 0,
            "modified_at": 0,
            "loaded_at": 0,
            "loaded_by": "",
        }
        for document_id, path in PATHS.items()
    ]
    warehouse.replace("raw_pdfs", pl.DataFrame(pdfs, schema=TABLES["raw_pdfs"].schema))
    warehouse.replace("chunks", chunks())
    warehouse.replace("synthetic_questions", generate(QUESTIONS, "extractive"))
    return settings


def same(questions: pl.DataFrame) -> list[dict]:
    return questions.select(SAME).sort("document_id", "question", "chunk_id", "purpose").to_dicts()


@pytest.mark.parametrize("name", ["out.jsonl", "out.json"])
@pytest.mark.parametrize("status", ["kept", "all"])
def test_an_export_is_read_back_as_the_same_questions_on_the_same_chunks(settings, name, status):
    file = settings.home / name
    summary = export_questions(settings, file, None, status)
    before = generate(QUESTIONS, "extractive")
    if status == "kept":
        before = before.filter(status="KEPT")
    assert same(generate(read_labelled([file], "test"))) == same(before)
    assert summary["questions"] == before.height


def test_a_row_of_jsonl_says_where_it_is_from(settings):
    file = settings.home / "out.jsonl"
    summary = export_questions(settings, file, None, "kept")
    assert summary == {"path": str(file), "format": "jsonl", "questions": summary["questions"]}
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    [row] = [row for row in rows if row["question"] == "How long?" and row["page"] == 1]
    assert row == {
        "question": "How long?",
        "file_name": "./rig.pdf",  # there is sub/rig.pdf too
        "page": 1,
        "chunk_text": TEXTS["rig-1"][0],
        "answer": "Five.",
        "purpose": "test",
        "kind": "labelled",
        "generator": "labelled:q.jsonl",
        "status": "KEPT",
        "score": 1.0,
        "question_id": row["question_id"],
    }
    [alone] = [r for r in rows if r["question"] == "Anything?" and r["file_name"] == "./rig.pdf"]
    assert "chunk_text" not in alone
    assert "page" not in alone


@pytest.mark.parametrize("name", ["out.jsonl", "out.json"])
def test_hostile_text_is_read_back_as_it_was_and_is_no_formula_in_argilla(settings, name):
    texts = [text.strip() for text in HOSTILE.values() if "\x00" not in text]
    labelled = [
        asked(question=text, answer=text, chunk_texts=(TEXTS["rig-1"][0],)) for text in texts
    ]
    Warehouse.of(settings).replace("synthetic_questions", generate(labelled))
    file = settings.home / name
    export_questions(settings, file, None, "all")
    read = read_labelled([file], "test")
    assert {(row.question, row.answer) for row in read} == {(text, text) for text in texts}
    if name == "out.json":
        for record in json.loads(file.read_text(encoding="utf-8")):
            cells = [*record["fields"].values(), *record["metadata"].values()]
            assert not [c for c in cells if isinstance(c, str) and c[:1] in tuple("=+-@\t\r\n")]


def test_the_suffix_says_the_format_unless_it_is_given(settings):
    assert export_questions(settings, settings.home / "a.JSON", None, "kept")["format"] == "argilla"
    text = settings.home / "questions.txt"
    assert export_questions(settings, text, "jsonl", "kept")["format"] == "jsonl"
    with pytest.raises(SettingsError, match=r"questions\.txt: no format for this suffix"):
        export_questions(settings, text, None, "kept")


def test_what_people_wrote_is_not_overwritten(settings, tmp_path):
    golden, folder = tmp_path / "golden.jsonl", tmp_path / "reviewed"
    golden.write_text('{"question": "Why?", "file_name": "rig.pdf"}\n')
    folder.mkdir()
    (tmp_path / "link.jsonl").symlink_to(golden)
    wrong = [golden, tmp_path / "link.jsonl", folder / "records.json"]
    given = settings.model_copy(update={"labelled": f"{golden}{os.pathsep}{folder}"})
    for file in wrong:
        with pytest.raises(SettingsError, match="questions are read from here"):
            export_questions(given, file, None, "kept")
    assert golden.read_text() == '{"question": "Why?", "file_name": "rig.pdf"}\n'


def test_an_older_export_is_replaced_and_a_failure_leaves_nothing_behind(settings):
    file = settings.home / "out.jsonl"
    file.write_text("old")
    export_questions(settings, file, None, "kept")
    assert read_labelled([file], "test")
    (settings.home / "folder.jsonl").mkdir()
    for wrong in (settings.home / "gone/out.jsonl", settings.home / "folder.jsonl"):
        with pytest.raises(SettingsError, match=r"\. Export to another file\.$"):
            export_questions(settings, wrong, None, "kept")
    assert not list(settings.home.glob(".*"))


def test_without_questions_the_export_says_how_to_get_some(tmp_path):
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home", labelled="")
    with pytest.raises(ProjectError, match=r"There are no questions in .* `embed-assets ingest`"):
        export_questions(settings, tmp_path / "out.jsonl", None, "kept")
    assert not Path(tmp_path / "out.jsonl").exists()
