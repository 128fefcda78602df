"""What people marked on the page becomes a file of questions, for review."""

import json
from pathlib import Path
from typing import Any

from embed_assets.errors import ProjectError
from embed_assets.questions.export import write_whole
from embed_assets.resources.warehouse import Warehouse
from embed_assets.search.server.feedback import read_votes
from embed_assets.settings import Settings

VOTES = "feedback.jsonl"
"""In the home: what people marked."""


def export_votes(settings: Settings, file: Path) -> dict[str, Any]:
    """Write what was marked as an answer, a row for each question and document, as JSON lines.

    Gives path, questions (rows), and rejected: questions of which every mark was a thumb down.
    ProjectError where nothing was marked as an answer.
    """
    votes = read_votes(settings.home / VOTES)
    answered = [vote for vote in votes if vote.get("relevant")]
    rejected = {vote["query"] for vote in votes} - {vote["query"] for vote in answered}
    if not answered:
        raise ProjectError(
            f"Nothing in {settings.home} was marked as an answer yet: the page of "
            "`embed-assets serve` has a thumb beside each result."
        )
    texts = _texts(settings, [vote["chunk_id"] for vote in answered])
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for vote in answered:
        key = (vote["query"], vote["path"])
        row = {"question": vote["query"], "file_name": vote["path"], "page": vote["page"]}
        row = rows.setdefault(key, row | {"chunk_text": []})
        row["chunk_text"] += texts.get(vote["chunk_id"], [])
    lines = [
        json.dumps({name: value for name, value in row.items() if value}, ensure_ascii=False)
        for row in rows.values()
    ]
    write_whole(file, "".join(f"{line}\n" for line in lines))
    return {"path": str(file), "questions": len(rows), "rejected": sorted(rejected)}


def _texts(settings: Settings, chunk_ids: list[str]) -> dict[str, list[str]]:
    """The text of each chunk that is still there."""
    rows = Warehouse.of(settings).read(
        "SELECT chunk_id, any_value(chunk_text) FROM chunks "
        "WHERE chunk_id IN (SELECT unnest(?::VARCHAR[])) GROUP BY chunk_id",
        [chunk_ids],
    )
    return {key: [text] for key, text in rows.iter_rows()}
