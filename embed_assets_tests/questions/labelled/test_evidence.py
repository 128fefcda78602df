"""People's questions find the chunks that answer them, and none is dropped in silence."""

import tracemalloc

import polars as pl

from embed_assets.questions.labelled.evidence import (
    documents_asked_about,
    find_evidence,
    labelled_questions,
)
from embed_assets.questions.labelled.files import LabelledQuestion
from embed_assets.questions.labelled.matching import (
    MATCH_THRESHOLD,
    Document,
    Match,
    match_evidence,
    read_documents,
)
from embed_assets.questions.statuses import (
    EVIDENCE_NOT_FOUND,
    KEPT,
    REJECTED_BY_REVIEWER,
    TOO_VAGUE,
    UNANSWERABLE,
)

ROW = {"question": "How long may the rig run alone?", "file_name": "rig.pdf"}


def asked(**fields) -> LabelledQuestion:
    """A question as it is read from a file, with some fields replaced."""
    values = {
        "question": ROW["question"],
        "file_name": "rig.pdf",
        "page": None,
        "evidence_text": None,
        "answer": None,
        "purpose": "test",
        "answerable": True,
        "source": "q.jsonl",
    }
    return LabelledQuestion(**(values | fields))


def chunks(*rows: tuple[str, str, int, int], document_id: str = "rig-1") -> pl.DataFrame:
    """rows: chunk_id, text, first and last page."""
    return pl.DataFrame(
        [(document_id, *row) for row in rows],
        schema=["document_id", "chunk_id", "chunk_text", "page_start", "page_end"],
        orient="row",
    )


RIG = chunks(
    ("alone", "The rig may run alone for five days in a row at most.\n\nThen it must rest.", 1, 1),
    ("bloom", "## Bloom\n\nBloom takes hold on the tines when the pike hangs in the light.", 1, 2),
    (
        "table",
        "| **Depth** | Time | Greatest rise |\n|---|---|---|\n"
        "| Shallow basin | 15 min | 3 points |\n| Pressure vessel | 40 min | 1 point |",
        3,
        3,
    ),
)


def found(rows: pl.DataFrame, page: int | None, evidence: str | None) -> Match:
    return match_evidence(dict(read_documents(rows)).get("rig-1", Document()), page, evidence)


# Finding the evidence.


def test_evidence_is_found_by_its_page_and_words():
    match = found(RIG, 1, "run alone for five days in a row")
    assert match.chunk_ids == ("alone",)
    assert match.score == 1.0


def test_words_are_compared_without_case_signs_or_markup():
    assert found(RIG, 1, "Run ALONE -- for *five* days, in a row!").score == 1.0


def test_evidence_from_a_table_is_found_whatever_stands_between_its_cells():
    for evidence in (
        "Pressure vessel 40 min 1 point",
        "Pressure vessel\t40 min\t1 point",
        "| Pressure vessel | 40 min | 1 point |",
        "Depth, Time, Greatest rise: Shallow basin; 15 min; 3 points",
    ):
        assert found(RIG, 3, evidence).chunk_ids == ("table",)


def test_the_same_words_in_another_order_are_not_the_evidence():
    rows = chunks(
        ("scrambled", "most in days a five at row", 1, 1),
        ("said", "five days in a row at most", 1, 1),
    )
    match = found(rows, 1, "five days in a row at most")
    assert (match.chunk_ids, match.score) == (("said",), 1.0)


def test_evidence_is_looked_for_on_its_page_first():
    twice = chunks(
        ("p1", "Close both gates first.", 1, 1), ("p2", "Close both gates first. Then go", 2, 2)
    )
    assert found(twice, 2, "close both gates first").chunk_ids == ("p2",)
    assert found(twice, 1, "close both gates first").chunk_ids == ("p1",)
    assert found(twice, None, "close both gates first").chunk_ids == ("p1", "p2")


def test_evidence_on_another_page_than_was_said_is_found_there():
    assert found(RIG, 7, "run alone for five days in a row").chunk_ids == ("alone",)
    assert found(RIG, 3, "run alone for five days in a row").chunk_ids == ("alone",)


def test_a_page_within_a_chunk_that_spans_pages_counts():
    assert found(RIG, 2, None).chunk_ids == ("bloom",)


def test_without_evidence_every_chunk_of_the_page_counts():
    assert found(RIG, 1, None).chunk_ids == ("alone", "bloom")
    assert found(RIG, 1, " -- ").chunk_ids == ("alone", "bloom")


def test_without_a_page_every_chunk_of_the_file_counts_once():
    repeated = pl.concat([RIG, RIG])
    assert found(repeated, None, None).chunk_ids == ("alone", "bloom", "table")


def test_a_page_without_chunks_matches_nothing():
    assert found(RIG, 9, None).chunk_ids == ()


def test_the_chunks_that_hold_nearly_as_much_count_and_the_best_comes_first():
    evidence = " ".join(f"w{n}" for n in range(60))
    whole = chunks(
        ("little", "w1 w2 w3", 1, 1), ("most", evidence[:-4], 1, 1), ("all", evidence, 1, 1)
    )
    assert found(whole, 1, evidence).chunk_ids == ("all", "most")


def test_evidence_that_stands_nowhere_matches_nothing():
    match = found(RIG, 1, "the treasurer keeps the wine in the cellar")
    assert match.chunk_ids == ()
    assert match.score < MATCH_THRESHOLD


def test_a_document_without_chunks_matches_nothing():
    assert found(RIG.clear(), 1, "five days").chunk_ids == ()
    assert found(RIG.clear(), None, None).chunk_ids == ()


def test_evidence_longer_than_a_chunk_matches_every_chunk_that_it_contains():
    said = [" ".join(f"{part}{n}" for n in range(60)) for part in ("head", "body", "tail")]
    rows = chunks(
        ("head", f"## Intro\n\nquite another matter is said here\n\n{said[0]}", 1, 1),
        ("body", said[1], 1, 2),
        ("tail", said[2], 2, 2),
        ("other", " ".join(f"else{n}" for n in range(60)), 2, 2),
    )
    match = found(rows, None, " ".join(said))
    assert sorted(match.chunk_ids) == ["body", "head", "tail"]
    assert match.score > 0.95
    assert set(found(rows, 1, " ".join(said)).chunk_ids) == {"body", "head", "tail"}


def test_evidence_cut_by_the_end_of_a_chunk_matches_both_parts():
    rows = chunks(
        ("first", "The tines bloom early. Then lower the pike by hand", 1, 1),
        ("second", "until the lamp goes green. Nobody may stand below it.", 1, 1),
    )
    match = found(rows, 1, "Then lower the pike by hand until the lamp goes green.")
    assert match.chunk_ids == ("first", "second")
    assert match.score > 0.9


def test_latex_and_breaks_in_cells_are_no_words():
    rows = chunks(("cell", "|at most<br>13 °C|", 1, 1))
    assert found(rows, 1, r"at most $13^{\circ} \mathrm{C}$").score == 1.0


def test_evidence_is_found_by_its_words_where_they_have_no_spaces():
    manual = chunks(
        ("vent", "打开外壳之前，请先拧松排气塞，直到嘶嘶声停止。", 1, 1),
        ("cold", "电池在寒冷的夜晚会失去电量，因此请把它放在室内。", 1, 1),
    )

    assert found(manual, None, "请先拧松排气塞，直至嘶嘶声停止").chunk_ids == ("vent",)
    assert found(manual, None, "每年由潜水员检查一次橡木柱").chunk_ids == ()


# Questions that name no file.


TWO = pl.concat(
    [
        RIG,
        chunks(
            ("copy", "The rig may run alone for five days in a row at most.\n\nAsk first.", 1, 1),
            ("short", "Then it must rest.", 2, 2),
            document_id="sub-2",
        ),
    ]
)
BOTH = {"rig-1": "rig.pdf", "sub-2": "sub/rig.pdf"}


def anywhere(*texts: str, evidence: str | None = None) -> dict[str, list[str]]:
    question = asked(file_name=None, chunk_texts=texts, evidence_text=evidence)
    rows = labelled_questions(TWO, [question], BOTH)
    return dict(rows.select("document_id", "relevant_chunk_ids").iter_rows())


def test_a_text_without_a_file_is_found_in_every_document_that_holds_it():
    assert anywhere("may run alone for five days in a row") == {
        "rig-1": ["alone"],
        "sub-2": ["copy"],
    }
    assert anywhere(evidence="bloom takes hold on the tines") == {"rig-1": ["bloom"]}


def test_a_text_that_is_in_no_document_makes_no_row():
    assert anywhere("the treasurer keeps the wine in the cellar") == {}
    assert anywhere("rest") == {}  # one word says nothing of where it is from
    assert anywhere() == {}


def test_the_text_of_a_chunk_names_that_chunk_and_not_those_that_hold_it_too():
    assert anywhere("Then it must rest.") == {"rig-1": ["alone"], "sub-2": ["short"]}
    assert anywhere("then IT must -- rest")["sub-2"] == ["short"]


def test_all_the_chunks_that_a_question_names_answer_it():
    texts = (RIG["chunk_text"][2], "bloom takes hold on the tines", "nothing of the kind is said")
    assert anywhere(*texts) == {"rig-1": ["table", "bloom"]}


def test_the_evidence_is_looked_for_where_the_chunks_text_is_not_found():
    assert anywhere("nothing of the kind is said", evidence="bloom takes hold on the tines") == {
        "rig-1": ["bloom"]
    }


# Rows.


def test_a_question_is_kept_with_the_chunks_that_answer_it():
    question = asked(page=1, evidence_text="five days in a row", answer="Five.", purpose="train")
    [row] = labelled_questions(RIG, [question], {"rig-1": "rig.pdf"}).to_dicts()
    assert row == {
        "chunk_id": "alone",
        "relevant_chunk_ids": ["alone"],
        "document_id": "rig-1",
        "question": ROW["question"],
        "answer": "Five.",
        "kind": "labelled",
        "purpose": "train",
        "generator": "labelled:q.jsonl",
        "prompt_version": row["prompt_version"],
        "status": KEPT,
        "score": 1.0,
    }


def test_a_question_whose_evidence_is_not_found_is_kept_with_that_status():
    question = asked(evidence_text="the treasurer keeps the wine in the cellar")
    [row] = labelled_questions(RIG, [question], {"rig-1": "rig.pdf"}).to_dicts()
    assert (row["status"], row["chunk_id"], row["relevant_chunk_ids"]) == (
        EVIDENCE_NOT_FOUND,
        "",
        [],
    )


def test_a_question_that_cannot_be_answered_is_kept_with_that_status():
    questions = [asked(answerable=False), asked(answerable=False, evidence_text="no such words")]
    rows = labelled_questions(RIG, questions, {"rig-1": "rig.pdf"})
    assert rows["status"].to_list() == [UNANSWERABLE, UNANSWERABLE]


def test_a_question_that_names_only_a_file_tests_but_does_not_train():
    purposes = {"train": TOO_VAGUE, "test": KEPT}
    for purpose, status in purposes.items():
        [row] = labelled_questions(RIG, [asked(purpose=purpose)], {"rig-1": "rig.pdf"}).to_dicts()
        assert (row["status"], row["relevant_chunk_ids"]) == (status, ["alone", "bloom", "table"])
    [row] = labelled_questions(
        RIG, [asked(purpose="train", page=3)], {"rig-1": "rig.pdf"}
    ).to_dicts()
    assert row["status"] == KEPT


def test_a_question_belongs_to_the_file_of_that_name_or_path():
    both = pl.concat([RIG, chunks(("other", "The other rig.", 1, 1), document_id="sub-2")])
    paths = {"rig-1": "rig.pdf", "sub-2": "sub/rig.pdf"}

    def documents_of(file_name: str) -> list[str]:
        question = asked(file_name=file_name)
        return labelled_questions(both, [question], paths)["document_id"].to_list()

    assert documents_of("sub/rig.pdf") == ["sub-2"]
    assert documents_of("rig.pdf") == ["rig-1", "sub-2"]
    assert documents_of("./rig.pdf") == ["rig-1"]
    assert documents_of("other.pdf") == []
    [row] = labelled_questions(both, [asked(file_name="sub/rig.pdf")], paths).to_dicts()
    assert row["relevant_chunk_ids"] == ["other"]


def test_no_questions_give_an_empty_frame_of_the_same_columns():
    some = labelled_questions(RIG, [asked()], {"rig-1": "rig.pdf"})
    assert labelled_questions(RIG, [], {"rig-1": "rig.pdf"}).schema == some.schema


def test_what_a_reviewer_said_of_a_question_stays_its_status():
    [row] = labelled_questions(
        RIG, [asked(dropped=REJECTED_BY_REVIEWER)], {"rig-1": "rig.pdf"}
    ).to_dicts()
    assert row["status"] == REJECTED_BY_REVIEWER


# What it takes.


def test_the_words_of_one_document_are_in_memory_at_a_time():
    question = asked(file_name=None, evidence_text="5x6 5x7 5x8 5x9")

    def document(number: int) -> pl.DataFrame:
        text = " ".join(f"{number}x{word}" for word in range(2000))
        return chunks(("3", text, 1, 1), document_id=f"rig-{number}")

    def peak(documents: int) -> int:
        """Bytes, where the chunks are made as they are read."""
        paths = {f"rig-{number}": f"rig-{number}.pdf" for number in range(documents)}
        tracemalloc.start()
        try:
            [found] = find_evidence(map(document, range(documents)), [question], paths)
            assert found.document_id == "rig-5"
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(60) < 2 * peak(10)


def test_documents_that_no_question_names_are_not_read():
    paths = {"rig-1": "rig.pdf", "sub-2": "sub/rig.pdf", "buoy-3": "buoy.pdf"}
    assert documents_asked_about([asked(), asked(file_name="gone.pdf")], paths) == [
        "rig-1",
        "sub-2",
    ]
    nameless = asked(file_name=None, evidence_text="Bloom takes hold")
    assert documents_asked_about([asked(), nameless], paths) == list(paths)
    assert documents_asked_about([], paths) == []
