"""What people marked becomes a file that the labelled questions are read from."""

import json

import pytest

from embed_assets.errors import ProjectError
from embed_assets.models.identity import text_id
from embed_assets.questions.labelled.files import read_labelled
from embed_assets.search.server.feedback import add_vote
from embed_assets.search.votes import VOTES, export_votes
from embed_assets_tests.search.homes import TEXTS, SearchedHome


def mark(home: SearchedHome, query: str, text: str, relevant: bool, path: str = "pump.pdf") -> None:
    vote = {"query": query, "chunk_id": text_id(text), "document_id": path, "path": path}
    add_vote(home.settings.home / VOTES, {**vote, "page": 1, "relevant": relevant})


def test_answers_become_questions_with_the_texts_that_answer(home: SearchedHome, tmp_path):
    hums, replace = TEXTS["pump"]
    mark(home, "what hums?", hums, True)
    mark(home, "what hums?", replace, True)
    mark(home, "which float?", TEXTS["winch"][0], False)
    file = tmp_path / "votes.jsonl"
    summary = export_votes(home.settings, file)
    assert (summary["questions"], summary["rejected"]) == (1, ["which float?"])
    [row] = [json.loads(line) for line in file.read_text().splitlines()]
    assert row == {
        "question": "what hums?",
        "file_name": "pump.pdf",
        "page": 1,
        "chunk_text": [hums, replace],
    }
    [question] = read_labelled((file,), "test")
    assert (question.question, question.purpose) == ("what hums?", "test")


def test_a_thumb_that_was_turned_down_is_no_answer(home: SearchedHome, tmp_path):
    mark(home, "what hums?", TEXTS["pump"][0], True)
    mark(home, "what hums?", TEXTS["pump"][0], False)
    with pytest.raises(ProjectError, match="thumb"):
        export_votes(home.settings, tmp_path / "votes.jsonl")
    assert not (tmp_path / "votes.jsonl").exists()


def test_a_chunk_that_is_gone_leaves_file_and_page(home: SearchedHome, tmp_path):
    mark(home, "what hums?", "no longer there", True)
    file = tmp_path / "votes.jsonl"
    export_votes(home.settings, file)
    assert json.loads(file.read_text()) == {
        "question": "what hums?",
        "file_name": "pump.pdf",
        "page": 1,
    }
