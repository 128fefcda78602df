"""Questions that are made again keep what was said of them over the whole corpus."""

import polars as pl

from embed_assets.questions.assets import keep_verdicts
from embed_assets.resources.warehouse import Warehouse
from embed_assets_tests.rows import question


def test_questions_made_again_keep_what_the_whole_corpus_said_of_them(tmp_path):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    rows = pl.concat([question("a"), question("b"), question("c")])
    warehouse.replace("synthetic_questions", rows)
    verdicts = pl.DataFrame({"question_id": ["q-a", "q-b"], "status": ["DUPLICATE", "VERBATIM"]})
    with warehouse.transaction() as transaction:
        transaction.update("synthetic_questions", verdicts)
    again = keep_verdicts(rows, warehouse, ["a", "b"])
    # What is said of a question by itself is said anew each time.
    assert again["status"].to_list() == ["DUPLICATE", "KEPT", "KEPT"]


def test_a_question_keeps_what_was_said_of_it_when_it_is_made_again_after_its_document_moved(
    tmp_path,
):
    warehouse = Warehouse(path=str(tmp_path / "warehouse.duckdb"))
    moved = question("new").with_columns(question_id=pl.lit("q-old"), status=pl.lit("DUPLICATE"))
    warehouse.replace("synthetic_questions", moved)
    again = keep_verdicts(question("new"), warehouse, ["new"])
    assert again.select("question_id", "status").rows() == [("q-new", "DUPLICATE")]
    assert again.schema == question("new").schema
