"""What became of a document: found by any of its names, told from others, with its figures."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import polars as pl
import pytest

from embed_assets.command.lineage import document_summary, document_text
from embed_assets.errors import ProjectError
from embed_assets.partitions import document_id
from embed_assets.resources.tracking import CHAMPION, Tracking
from embed_assets.resources.warehouse import Warehouse
from embed_assets.settings import Settings
from embed_assets.training.record import PAIR_COLUMNS
from embed_assets_tests.rows import NOW, filled, model

Trained = tuple[str, str, str, int]
"""Version, path, sha256 and questions of a document that a version was trained on."""


def key_of(path: str) -> str:
    return document_id(PurePosixPath(path))


class Home:
    """A home whose tables are written by hand."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(pdfs=folder, home=folder / "home")
        self.warehouse = Warehouse.of(self.settings)

    def fill(self, table: str, *rows: dict[str, Any]) -> None:
        self.warehouse.replace(table, filled(table, rows))

    def pdfs(self, **contents: str) -> None:
        """What is on record: sha256 by the name of a file."""
        rows = [
            {"document_id": key_of(f"{name}.pdf"), "path": f"{name}.pdf", "sha256": sha256}
            for name, sha256 in contents.items()
        ]
        self.fill("raw_pdfs", *rows)

    def trained(self, *learned: Trained) -> None:
        versions = sorted({version for version, *_ in learned})
        rows = [
            model(v, trained_at=NOW + timedelta(hours=int(v)), mlflow_run_id=f"training {v}")
            for v in versions
        ]
        self.warehouse.replace("models", pl.concat(rows))
        self.fill(
            "model_documents",
            *(
                {
                    "version": version,
                    "document_id": key_of(path),
                    "path": path,
                    "sha256": sha256,
                    "questions": questions,
                }
                for version, path, sha256, questions in learned
            ),
        )

    def questions(self, path: str, *splits: str | None, pages: tuple[int, int] = (3, 3)) -> None:
        """A chunk, and questions about it; None: one that is in no split."""
        key = key_of(path)
        where = {"page_start": pages[0], "page_end": pages[1]}
        self.fill("chunks", {"document_id": key, "chunk_id": "c", **where})
        asked = [(f"q{n}", split) for n, split in enumerate(splits)]
        self.fill(
            "synthetic_questions",
            *(
                {
                    "document_id": key,
                    "chunk_id": "c",
                    "question_id": name,
                    "question": f"What says {name}?",
                    "kind": "claim",
                    "status": "KEPT" if split else "DUPLICATE",
                }
                for name, split in asked
            ),
        )
        self.fill(
            "training_pairs",
            *(
                {"question_id": name, "document_id": key, "split": split}
                for name, split in asked
                if split
            ),
        )

    def keep_pairs(
        self, version: str, path: str, sha256: str, asked: Sequence[str], prefix: str = ""
    ) -> None:
        """The pairs of a version, one of them about another document. prefix: of question_ids."""
        rows = [
            dict.fromkeys(PAIR_COLUMNS, "")
            | {
                "question_id": f"{prefix}{name}",
                "anchor": f"What says {name}?",
                "chunk_id": "c",
                "document_id": key_of(path),
                "sha256": sha256,
            }
            for name in asked
        ]
        rows.append(dict.fromkeys(PAIR_COLUMNS, "another"))
        file = self.settings.models / f"v{version}" / "pairs.parquet"
        file.parent.mkdir(parents=True)
        pl.DataFrame(rows).write_parquet(file)
        kept = pl.DataFrame({"version": [version], "pairs": [f"models/v{version}/pairs.parquet"]})
        with self.warehouse.transaction() as transaction:
            transaction.update("models", kept)

    def ask(self, named: str) -> dict[str, Any]:
        return document_summary(self.settings, named)

    def learned(self, named: str) -> list[tuple[str, int, bool]]:
        """Version, questions, and whether of the same content."""
        rows = self.ask(named)["versions"]
        return [(row["version"], row["questions"], row["same_content"]) for row in rows]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    for name, value in (("MAX_RETRIES", "0"), ("TIMEOUT", "3")):
        monkeypatch.setenv(f"MLFLOW_HTTP_REQUEST_{name}", value)  # set by the command: put back
    return Home(tmp_path)


# Who learned from it.


@pytest.mark.parametrize("named", ["a.pdf", "./a.pdf", key_of("a.pdf")])
def test_a_document_is_found_by_its_path_and_by_its_id(home, named):
    home.pdfs(a="1", b="2")
    home.trained(("1", "a.pdf", "1", 5), ("2", "b.pdf", "2", 3), ("3", "a.pdf", "1", 7))
    found = home.ask(named)
    assert (found["document_id"], found["path"]) == (key_of("a.pdf"), "a.pdf")
    assert (found["on_record"], found["forgotten"], found["departed_at"]) == (True, False, None)
    assert home.learned(named) == [("3", 7, True), ("1", 5, True)], "the newest first"


def test_a_version_that_learned_from_it_says_its_aliases(home):
    home.pdfs(a="1")
    home.trained(("1", "a.pdf", "1", 5))
    tracking = Tracking(home=str(home.settings.home))
    client, name = tracking.client(), tracking.connect()
    client.create_registered_model(name)
    client.create_model_version(name, str(home.settings.home))
    client.set_registered_model_alias(name, CHAMPION, "1")
    assert home.ask("a.pdf")["versions"][0]["aliases"] == ["champion"]
    assert "version 1 (champion): 5 questions" in document_text(home.ask("a.pdf"))


def test_what_an_earlier_content_taught_is_told_from_what_this_one_did(home):
    home.pdfs(a="new")
    home.trained(("1", "a.pdf", "old", 5), ("2", "a.pdf", "new", 6))
    assert home.learned("a.pdf") == [("2", 6, True), ("1", 5, False)]
    assert "version 1: 5 questions, of another content" in document_text(home.ask("a.pdf"))


def test_a_document_that_moved_is_found_under_both_paths_with_all_that_it_taught(home):
    home.pdfs(new="1")
    home.fill("former_paths", {"path": "old.pdf", "document_id": key_of("new.pdf")})
    home.trained(("1", "old.pdf", "1", 5), ("2", "new.pdf", "1", 6), ("3", "old.pdf", "0", 4))
    for named in ("old.pdf", "new.pdf", key_of("old.pdf")):
        assert home.ask(named)["path"] == "new.pdf"
        assert home.learned(named) == [("3", 4, False), ("2", 6, True), ("1", 5, True)]


def test_a_document_that_took_anothers_place_taught_nothing_of_what_that_one_did(home):
    home.pdfs(new="1", old="2")
    home.fill("former_paths", {"path": "old.pdf", "document_id": key_of("new.pdf")})
    home.trained(("1", "old.pdf", "1", 5))
    assert home.learned("new.pdf") == [("1", 5, True)]
    assert home.learned("old.pdf") == []
    assert "No version has learned from it." in document_text(home.ask("old.pdf"))


def test_a_copy_that_stands_beside_it_keeps_what_it_taught_itself(home):
    home.pdfs(a="1", copy="1")
    home.trained(("1", "a.pdf", "1", 5), ("1", "copy.pdf", "1", 2))
    assert home.learned("a.pdf") == [("1", 5, True)]
    assert home.learned("copy.pdf") == [("1", 2, True)]
    home.pdfs(a="1", copy="another by now")
    assert home.learned("a.pdf") == [("1", 5, True)]


def test_a_document_that_left_is_known_by_its_last_content_and_by_the_versions(home):
    home.pdfs(b="2")
    left = {"path": "a.pdf", "document_id": key_of("a.pdf"), "sha256": "1", "departed_at": NOW}
    home.fill("departed", left)
    home.trained(("1", "a.pdf", "1", 2), ("2", "c.pdf", "3", 1))
    home.keep_pairs("1", "a.pdf", "1", ["q8", "q9"])
    found = home.ask("a.pdf")
    assert (found["on_record"], found["departed_at"]) == (False, NOW.isoformat())
    assert home.learned("a.pdf") == [("1", 2, True)]
    asked = {row["question_id"]: row for row in found["questions"]}
    assert asked.keys() == {"q8", "q9"}
    assert asked["q8"]["question"] == "What says q8?"
    assert (asked["q8"]["split"], asked["q8"]["versions"]) == ("train", ["1"])
    assert f"It left the folder on {NOW:%Y-%m-%d}." in document_text(found)
    assert home.learned("c.pdf") == [("2", 1, True)], "known to a version alone"


def test_a_document_that_was_forgotten_says_so_and_whom_it_taught(home):
    key = key_of("a.pdf")
    home.pdfs(b="2")
    home.trained(("1", "a.pdf", "1", 5), ("3", "b.pdf", "2", 1))
    home.fill(  # as `forget` leaves it
        "model_documents",
        {
            "version": "1",
            "document_id": f"forgotten-{key[-8:]}",
            "path": f"forgotten-{key[-8:]}",
            "sha256": "1",
            "questions": 5,
        },
    )
    home.fill(
        "forgotten",
        {
            "path": "a.pdf",
            "sha256": "1",
            "document_id": key,
            "versions": ["1", "2"],
            "forgotten_at": NOW,
        },
    )
    home.keep_pairs("1", "a.pdf", "1", ["q8"])
    found = home.ask("a.pdf")
    assert (found["forgotten"], found["forgotten_at"]) == (True, NOW.isoformat())
    assert home.learned("a.pdf") == [("1", 5, True), ("2", 0, False)]
    assert found["questions"] == [], "its texts are redacted"
    assert f"Forgotten on {NOW:%Y-%m-%d}." in document_text(found)


# What it gave.


def test_its_questions_say_where_they_stand_what_they_are_for_and_who_learned_them(home):
    home.pdfs(a="1")
    home.trained(("1", "a.pdf", "1", 1), ("2", "a.pdf", "1", 1))
    home.questions("a.pdf", "train", "train", "test_labelled", None, pages=(3, 4))
    home.keep_pairs("1", "a.pdf", "1", ["q0"])
    home.keep_pairs("2", "a.pdf", "1", ["q0", "q1"])
    found = home.ask("a.pdf")
    assert found["chunks"] == 1
    said = [(row["split"], row["status"], row["versions"]) for row in found["questions"]]
    assert said == [
        ("train", "KEPT", ["2", "1"]),
        ("train", "KEPT", ["2"]),
        ("test_labelled", "KEPT", []),
        (None, "DUPLICATE", []),
    ]
    first = found["questions"][0]
    assert (first["kind"], first["chunk_id"], first["pages"]) == ("claim", "c", [3, 4])
    text = document_text(found)
    assert "Questions (2 for training, 1 by people, 1 duplicate):" in text
    assert "p. 3–4, for training (v2, v1): What says q0?" in text


def test_a_question_made_again_after_its_document_moved_is_the_same_question(home):
    """Its question_id is made with the name that the document has when the question is made."""
    home.pdfs(new="1")
    home.fill("former_paths", {"path": "old.pdf", "document_id": key_of("new.pdf")})
    home.trained(("1", "old.pdf", "1", 3), ("2", "new.pdf", "1", 2))
    home.questions("new.pdf", "train", "train")
    home.keep_pairs("1", "old.pdf", "1", ["q0", "q1", "q7"], prefix="old ")
    home.keep_pairs("2", "new.pdf", "1", ["q0", "q1"])
    found = home.ask("new.pdf")
    said = [(row["question"], row["kind"], row["versions"]) for row in found["questions"]]
    assert said == [
        ("What says q0?", "claim", ["2", "1"]),
        ("What says q1?", "claim", ["2", "1"]),
        ("What says q7?", None, ["1"]),
    ]
    assert "p. 3, for training (v2, v1): What says q0?" in document_text(found)


def test_a_document_that_is_held_out_says_so(home):
    home.pdfs(a="1", b="2")
    home.fill(
        "split_assignments",
        {"kind": "document", "id": key_of("a.pdf"), "split": "test_unseen_documents"},
        {"kind": "document", "id": key_of("b.pdf"), "split": "train"},
    )
    assert home.ask("a.pdf")["held_out"]
    assert not home.ask("b.pdf")["held_out"]


def measured(home: Home, *evaluations: tuple[str, str, str, int]) -> None:
    """Run, model, identity and hour of evaluations of two questions, at two dimensions.

    What is measured at an odd hour was measured on other questions than at an even one. NDCG@10 is
    a tenth of the hour for q0, nothing for q1, and 1 at the smaller dimension.
    """
    home.fill(
        "evaluations",
        *(
            {
                "run_id": run_id,
                "model": named,
                "identity": identity,
                "questions_version": str(hour % 2),
                "corpus_version": "c",
                "dimensions": [8, 4],
                "measured_at": NOW + timedelta(hours=hour),
            }
            for run_id, named, identity, hour in evaluations
        ),
    )
    home.fill(
        "query_results",
        *(
            {
                "run_id": run_id,
                "model": named,
                "split": "test_labelled",
                "dimension": dimension,
                "question_id": asked,
                "ndcg_at_10": 1.0 if dimension == 4 else hour / 10 if asked == "q0" else 0.0,
            }
            for run_id, named, _, hour in evaluations
            for dimension in (8, 4)
            for asked in ("q0", "q1", "of another document")
        ),
    )


def test_its_figures_are_those_of_models_measured_on_the_same_questions(home):
    home.pdfs(a="1")
    home.trained(("1", "a.pdf", "1", 1), ("2", "a.pdf", "1", 1))
    home.questions("a.pdf", "test_labelled", "test_seen_documents", "train")
    measured(
        home,
        ("training 1", "tuned", "one", 1),
        ("base_eval", "base", "base", 2),
        ("comparison", "base", "base", 4),
        ("training 2", "tuned", "two", 6),
        ("comparison", "champion v1", "one", 8),
        ("comparison", "bm25", "bm25", 10),
        ("training 1", "tuned + bm25", "one, bm25", 2),
        ("training 2", "tuned + bm25", "two, bm25", 6),
        ("comparison", "base + bm25", "base, bm25", 4),
        ("later", "base", "base", 3),
        ("comparison", "half of the pairs", "part a of one", 8),
        ("comparison 2", "half of the pairs", "part b of two", 6),
    )
    assert home.ask("a.pdf")["figures"] == [
        {"model": "base", "ndcg_at_10": pytest.approx(0.2), "questions": 2},
        {"model": "base + bm25", "ndcg_at_10": pytest.approx(0.2), "questions": 2},
        {"model": "bm25", "ndcg_at_10": pytest.approx(0.5), "questions": 2},
        {"model": "v1", "ndcg_at_10": pytest.approx(0.4), "questions": 2},
        {"model": "v1 + bm25", "ndcg_at_10": pytest.approx(0.1), "questions": 2},
        {"model": "v2", "ndcg_at_10": pytest.approx(0.3), "questions": 2},
        {"model": "v2 + bm25", "ndcg_at_10": pytest.approx(0.3), "questions": 2},
    ]
    said = (
        "NDCG@10 over 2 test questions about it: base 0.200, base + bm25 0.200, bm25 0.500, "
        "v1 0.400, v1 + bm25 0.100, v2 0.300, v2 + bm25 0.300"
    )
    assert said in document_text(home.ask("a.pdf"))


def test_before_any_training_its_figures_are_those_of_the_base(home):
    home.pdfs(a="1")
    home.questions("a.pdf", "test_labelled", "train")
    measured(home, ("base_eval", "base", "base", 2))
    assert home.ask("a.pdf")["figures"] == [
        {"model": "base", "ndcg_at_10": pytest.approx(0.2), "questions": 1}
    ]


# What is no document.


def test_a_name_that_no_document_has_is_told_with_the_nearest(home):
    home.pdfs(**{"manuals/pump-guide": "1", "winch": "2"})
    for named in ("manuals/pump_guide.pdf", "pump-guide.pdf"):
        with pytest.raises(ProjectError) as raised:
            home.ask(named)
        said = str(raised.value)
        assert said.startswith(f"{named}: no document on record has this path or id; the nearest")
        assert "manuals/pump-guide.pdf" in said
        assert "winch" not in said
        assert "\n" not in said
    with pytest.raises(ProjectError, match=r"has this path or id\.$"):
        home.ask("zzzzzzzz")


def test_before_anything_is_ingested_there_is_no_document(home):
    with pytest.raises(ProjectError, match=r"^a\.pdf: There is no document yet"):
        home.ask("a.pdf")
