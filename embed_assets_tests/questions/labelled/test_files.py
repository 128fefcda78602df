"""People's questions are read from the formats in which people keep them."""

import codecs
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from embed_assets.data_files.reading import real_text
from embed_assets.errors import SettingsError
from embed_assets.questions.labelled.files import (
    LabelledQuestion,
    read_bad_rows,
    read_labelled,
)
from embed_assets_tests.documents.folders import folder_in_memory
from embed_assets_tests.questions.labelled.test_evidence import ROW, asked


def write(file: Path, *rows: dict | str) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


# Reading files.


def test_a_row_needs_a_question_and_a_file_name_alone(tmp_path):
    [question] = read_labelled([write(tmp_path / "q.jsonl", ROW)], "test")
    assert question == asked()


def test_a_row_may_say_where_its_evidence_is(tmp_path):
    row = {**ROW, "page": 3, "evidence_text": "five days", "answer": "Five.", "doc_type": "manual"}
    [question] = read_labelled([write(tmp_path / "q.jsonl", row)], "test")
    assert question == asked(page=3, evidence_text="five days", answer="Five.")


def test_nulls_and_empty_texts_are_nothing(tmp_path):
    row = {**ROW, "page": None, "evidence_text": "", "answer": None, "purpose": None}
    [question] = read_labelled([write(tmp_path / "q.jsonl", row)], "test")
    assert question == asked()


def test_a_rows_purpose_wins_over_the_default(tmp_path):
    file = write(tmp_path / "q.jsonl", {**ROW, "purpose": "train"}, {**ROW, "purpose": "test"}, ROW)
    for default in ("train", "test"):
        purposes = [question.purpose for question in read_labelled([file], default)]
        assert purposes == ["train", "test", default]


def test_rows_of_several_files_come_in_their_order_and_name_their_file(tmp_path):
    files = [write(tmp_path / "b.jsonl", ROW, ROW), write(tmp_path / "a.jsonl", ROW)]
    assert [q.source for q in read_labelled(files, "test")] == ["b.jsonl", "b.jsonl", "a.jsonl"]
    assert read_labelled([], "test") == []


def test_a_file_beside_pdfs_in_a_bucket_is_read_and_read_again_when_it_changes():
    with folder_in_memory() as folder:
        file = folder.place / "questions.jsonl"
        with pytest.raises(SettingsError, match=r"LABELLED: memory://.*/questions\.jsonl: No such"):
            read_labelled([file], "test")
        folder.put("questions.jsonl", content=b'{"question": "Why?", "file_name": "a.pdf"}')
        [question] = read_labelled([file], "test")
        assert (question.question, question.source) == ("Why?", "questions.jsonl")
        folder.put("questions.jsonl", content=b'{"question": "How?", "file_name": "a.pdf"}')
        assert read_labelled([file], "test")[0].question == "How?"
        folder.put("questions.jsonl", content=b"{}")
        with pytest.raises(SettingsError, match=r"memory://.*questions\.jsonl: its only row"):
            read_labelled([file], "test")


def test_empty_lines_and_the_mark_of_windows_editors_are_passed_over(tmp_path):
    file = tmp_path / "q.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROW).encode() + b"\r\n\r\n   \n" + b"\n")
    assert len(read_labelled([file], "test")) == 1


def test_characters_that_only_look_like_line_ends_do_not_cut_a_row(tmp_path):
    evidence = "five days\u2028in a row\u0085at\u2029most"  # as text from PDFs has them
    file = write(tmp_path / "q.jsonl", {**ROW, "evidence_text": evidence}, ROW)
    first, second = read_labelled([file], "test")
    assert first.evidence_text == evidence
    assert second.evidence_text is None


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{not json", "Expecting property name"),
        ('{"file_name": "rig.pdf"}', "lacks 'question'"),
        ('{"question": "Why?"}', "names no file, no chunk and no evidence"),
        ('{"question": "  ", "file_name": "rig.pdf"}', "the question is empty"),
        ('{"question": null, "file_name": "rig.pdf"}', "the question is empty"),
        ('{"question": "Why?", "file_name": null}', "names no file, no chunk and no evidence"),
        (
            '{"question": "Why?", "file_name": "rig.pdf", "page": "iii"}',
            "page is 'iii', not a whole number",
        ),
        ('{"question": "Why?", "file_name": "rig.pdf", "purpose": "fun"}', "neither train nor"),
        ('["question"]', "is a list, not an object"),
        ('"question"', "is a str, not an object"),
    ],
)
def test_a_row_that_cannot_be_read_is_named_and_the_others_are_taken(tmp_path, line, complaint):
    file = write(tmp_path / "q.jsonl", ROW, "", line, ROW)
    assert len(read_labelled([file], "test")) == 2
    [bad] = read_bad_rows([file], "test")
    assert (bad.file, bad.place) == (file, "line 3")
    assert complaint in bad.reason
    alone = write(tmp_path / "alone.jsonl", line, line)
    with pytest.raises(SettingsError, match=f"^EMBED_ASSETS_LABELLED: {alone}: [^\\n]*$"):
        read_labelled([alone], "test")


def test_a_file_that_is_missing_or_not_text_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"gone\.jsonl: No such file or directory\.$"):
        read_labelled([tmp_path / "gone.jsonl"], "test")
    (tmp_path / "x.jsonl").write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SettingsError, match=r"x\.jsonl: looks like binary data\. Wanted: JSON"):
        read_labelled([tmp_path / "x.jsonl"], "test")


def test_only_answerable_false_makes_a_question_unanswerable(tmp_path):
    rows = [{**ROW, "answerable": value} for value in (False, True, None)]
    questions = read_labelled([write(tmp_path / "q.jsonl", *rows)], "test")
    assert [question.answerable for question in questions] == [False, True, True]


# Names of columns.


def test_columns_may_have_the_names_that_others_give_them(tmp_path):
    rows = [
        {"anchor": "Why?", "positive": "Because."},
        {"Query": "Why?", "Context": "Because."},
        {"user_input": "Why?", "reference_contexts": ["Because.", "So."], "reference": "So."},
    ]
    questions = read_labelled([write(tmp_path / "q.jsonl", *rows)], "test")
    assert [q.question for q in questions] == ["Why?"] * 3
    assert [q.chunk_texts for q in questions] == [("Because.",)] * 2 + [("Because.", "So.")]
    assert [q.answer for q in questions] == [None, None, "So."]


def test_a_row_without_a_file_needs_a_text_that_answers_it(tmp_path):
    for field in ("chunk_text", "evidence_text"):
        file = write(tmp_path / f"{field}.jsonl", {"question": "Why?", field: "Because."})
        [question] = read_labelled([file], "test")
        assert (question.file_name, question.texts) == (None, ("Because.",))


def test_a_status_is_kept_only_where_it_is_said_about_the_question_itself(tmp_path):
    statuses = ["KEPT", "VERBATIM", "REJECTED_BY_REVIEWER", "TOO_VAGUE_TO_TRAIN_ON", "done", None]
    file = write(tmp_path / "q.jsonl", *({**ROW, "status": status} for status in statuses))
    dropped = [question.dropped for question in read_labelled([file], "test")]
    assert dropped == [None, "VERBATIM", "REJECTED_BY_REVIEWER", None, None, None]


def test_a_question_whose_evidence_was_not_found_does_not_come_back_as_one_about_its_file(tmp_path):
    lost = {**ROW, "status": "EVIDENCE_NOT_FOUND"}
    file = write(tmp_path / "q.jsonl", lost, {**lost, "evidence_text": "five days"})
    assert [q.dropped for q in read_labelled([file], "test")] == ["EVIDENCE_NOT_FOUND", None]


# CSV.


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_has_the_delimiter_that_its_header_has(tmp_path, delimiter, encoding):
    lines = [
        ["question", "file_name", "page", "evidence_text", "answerable"],
        ['"Wie lange, höchstens; und wo?"', "rig.pdf", "3", '"fünf Tage\nam Stück"', ""],
        ["", "", "", "", ""],
        ["Warum?", "rig.pdf", "", "", "FALSE"],
    ]
    text = "\r\n".join(delimiter.join(cells) for cells in lines)
    (tmp_path / "q.csv").write_bytes(text.encode(encoding))
    first, second = read_labelled([tmp_path / "q.csv"], "test")
    assert (first.question, first.page) == ("Wie lange, höchstens; und wo?", 3)
    assert (first.evidence_text, first.answerable) == ("fünf Tage\nam Stück", True)
    assert (second.question, second.page, second.answerable) == ("Warum?", None, False)


def test_what_excel_saved_in_its_own_encoding_is_refused_row_by_row_with_the_remedy(tmp_path):
    file = tmp_path / "q.csv"
    text = "question;file_name\r\nWie lange läuft er?;rig.pdf\r\n"
    file.write_bytes(text.encode("cp1252"))
    with pytest.raises(SettingsError, match=r"q\.csv: .*not UTF-8 text; .* as 'CSV UTF-8'"):
        read_labelled([file], "test")
    file.write_bytes(f"{text}Warum?;rig.pdf\r\n".encode("cp1252"))
    assert [q.question for q in read_labelled([file], "test")] == ["Warum?"]
    assert [row.place for row in read_bad_rows([file], "test")] == ["row 2"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("Why?,rig.pdf,,x", "more cells than the header has"),
        ("Why?,rig.pdf,iii", "page is 'iii', not a whole number"),
        ("Why?,rig.pdf,2.5", "page is '2.5', not a whole number"),
        ("Why?,,3", "names no file, no chunk and no evidence"),
        ('"Why?"x,rig.pdf,3', "expected after"),
    ],
)
def test_a_row_of_a_csv_that_cannot_be_read_is_named_by_its_number(tmp_path, row, complaint):
    file = tmp_path / "q.csv"
    file.write_text(f"question,file_name,page\nHow?,rig.pdf,1.0\n{row}\n", encoding="utf-8")
    assert len(read_labelled([file], "test")) == 1
    [bad] = read_bad_rows([file], "test")
    assert (bad.file, bad.place) == (file, "row 3")
    assert complaint in bad.reason


# Cells.


def test_cells_are_read_alike_in_every_format(tmp_path):
    from datasets import Dataset

    rows = [
        {"Question": "Why?", "File Name": "rig.pdf", "page": 3, "answer": "None"},
        {"Question": "How?", "File Name": "rig.pdf", "page": None, "answer": None},
    ]
    frame: Any = Dataset.from_list(rows).to_pandas()
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.tsv.gz", index=False, sep="\t", na_rep="#N/A")
    frame.to_json(tmp_path / "c.json")
    frame.to_json(tmp_path / "d.json", orient="split")
    frame.to_json(tmp_path / "e.json", orient="records", lines=True)
    frame.to_parquet(tmp_path / "f.parquet")
    frame.to_csv(tmp_path / "g.csv", index=False, sep=";", encoding="utf-16")
    files = sorted(tmp_path.iterdir())
    read = [replace(question, source="") for question in read_labelled(files, "test")]
    both = [
        asked(question="Why?", page=3, answer="None", source=""),
        asked(question="How?", source=""),
    ]
    assert read == both * len(files)


def test_passages_may_be_a_list_that_was_written_as_a_text(tmp_path):
    file = tmp_path / "testset.csv"
    file.write_text(
        "user_input,reference_contexts,ground_truths\n"
        "Why?,\"['<1-hop>\\n\\nBecause.', 'So.']\",\"['x', 'y']\"\n"
        'How?,"[""It is.""]",\nWhen?,"[1] Once.",soon\n'
    )
    questions = read_labelled([file], "test")
    assert [q.chunk_texts for q in questions] == [("Because.", "So."), ("It is.",), ("[1] Once.",)]
    assert [q.answer for q in questions] == ["x\ny", None, "soon"]


def test_several_texts_of_evidence_are_several_passages(tmp_path):
    rows = [{"question": "Why?", "evidence": texts} for texts in (["a", "b"], ["a"], "a")]
    questions = read_labelled([write(tmp_path / "q.jsonl", *rows)], "test")
    assert [(q.evidence_text, q.chunk_texts) for q in questions] == [
        (None, ("a", "b")),
        ("a", ()),
        ("a", ()),
    ]


@pytest.mark.parametrize(
    "page", ["NaN", "1e400", "1" + "0" * 400, "-1", '"3-4"', "[1, 2]", "true", "{}"]
)
def test_no_page_ends_the_reading(tmp_path, page):
    line = f'{{"question": "Why?", "file_name": "rig.pdf", "page": {page}}}'
    file = write(tmp_path / "q.jsonl", ROW, line)
    taken, bad = read_labelled([file], "test"), read_bad_rows([file], "test")
    assert len(taken) + len(bad) == 2
    assert all(len(row.reason) < 100 for row in bad)


def test_a_text_that_is_no_unicode_costs_its_row(tmp_path):
    file = write(tmp_path / "q.jsonl", ROW, '{"question": "\\ud83d?", "file_name": "rig.pdf"}')
    assert len(read_labelled([file], "test")) == 1
    assert "is half a character" in read_bad_rows([file], "test")[0].reason
    rows = json.dumps(ROW) + '\n{"question": "\ud83d?", "file_name": "rig.pdf"}\n'
    file.write_bytes(codecs.BOM_UTF16_LE + rows.encode("utf-16-le", "surrogatepass"))
    assert len(read_labelled([file], "test")) == 1
    assert len(read_bad_rows([file], "test")) == 1


def test_a_text_that_was_saved_in_another_encoding_says_so():
    with pytest.raises(ValueError, match="no character: the file is not UTF-8 text"):
        real_text("Caf\udce9")


def test_a_file_of_which_no_row_can_be_used_is_refused_with_the_first_reason(tmp_path):
    file = write(tmp_path / "q.jsonl", '{"question": ""}', '{"question": "Why?"}')
    with pytest.raises(SettingsError, match=r"none of its 2 rows can be used; line 1: the quest"):
        read_labelled([file], "test")
    with pytest.raises(SettingsError, match=r"none\.json: holds no rows\. A row has a question"):
        read_labelled([write_json(tmp_path / "none.json", [])], "test")


def test_bad_files_of_a_folder_are_like_bad_rows(tmp_path):
    folder = tmp_path / "set"
    write_json(folder / "data" / "test.json", [ROW])
    write_json(folder / "dataset_infos.json", {"default": {}})
    (folder / "notes.csv").write_text("who,when\nme,now\n")
    write(folder / "train.jsonl", ROW, "{")
    questions = read_labelled([folder], "test")
    assert sorted(q.purpose for q in questions) == ["test", "train"]
    assert [(bad.file, bad.place) for bad in read_bad_rows([folder], "test")] == [
        (folder, "notes.csv"),
        (folder, "train.jsonl, line 2"),
    ]


# JSON, LlamaIndex and BEIR.


def write_json(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding="utf-8")
    return file


def test_a_json_file_may_be_a_list_of_rows(tmp_path):
    [question] = read_labelled([write_json(tmp_path / "q.json", [ROW])], "test")
    assert question == asked(source="q.json")
    bad = write_json(tmp_path / "bad.json", [ROW, {"file_name": "rig.pdf"}])
    assert len(read_labelled([bad], "test")) == 1
    assert [str(row) for row in read_bad_rows([bad], "test")] == [f"{bad}, row 2: lacks 'question'"]
    with pytest.raises(SettingsError, match=r"other\.json: .* holds no rows: an object"):
        read_labelled([write_json(tmp_path / "other.json", {"rows": []})], "test")
    (tmp_path / "torn.json").write_text("[")
    with pytest.raises(SettingsError, match=r"torn\.json: is no JSON: Expecting value"):
        read_labelled([tmp_path / "torn.json"], "test")


def test_llamaindex_gives_a_question_per_query_with_all_its_passages(tmp_path):
    content = {
        "queries": {"q1": "Why?", "q2": "How?"},
        "corpus": {"a": "Because.", "b": "So."},
        "relevant_docs": {"q1": ["a", "b"], "q2": ["b"]},
        "mode": "text",
    }
    why, how = read_labelled([write_json(tmp_path / "qa.json", content)], "train")
    assert (why.question, why.chunk_texts, why.purpose) == ("Why?", ("Because.", "So."), "train")
    assert (how.question, how.chunk_texts) == ("How?", ("So.",))


def test_what_does_not_fit_together_in_llamaindex_is_a_bad_row_and_the_rest_is_taken(tmp_path):
    content = {
        "queries": {"q1": "Why?", "q2": "How?", "q3": "", "q4": "When?"},
        "corpus": {"a": "Because."},
        "relevant_docs": {"q1": ["a", "gone"], "q2": ["gone"], "q3": ["a"], "q9": ["a"]},
    }
    file = write_json(tmp_path / "torn.json", content)
    assert [(q.question, q.chunk_texts) for q in read_labelled([file], "train")] == [
        ("Why?", ("Because.",))
    ]
    assert [(bad.place, bad.reason) for bad in read_bad_rows([file], "train")] == [
        ("query 'q1'", "relevant_docs names 'gone', which corpus lacks"),
        ("query 'q2'", "relevant_docs names 'gone', which corpus lacks"),
        ("query 'q3'", "the question is empty"),
        ("query 'q4'", "names no file, no chunk and no evidence"),
        ("query 'q9'", "relevant_docs names it, and queries lacks it"),
    ]


@pytest.fixture
def beir(tmp_path) -> Path:
    folder = tmp_path / "beir"
    folder.mkdir()
    write(
        folder / "corpus.jsonl",
        {"_id": "a", "title": "Bloom", "text": "It takes hold."},
        {"_id": "b", "title": "", "text": "Close the gates."},
    )
    write(folder / "queries.jsonl", *({"_id": f"q{n}", "text": f"Why {n}?"} for n in range(3)))
    return folder


def test_beir_gives_a_question_per_query_and_split_with_its_relevant_passages(beir):
    (beir / "qrels").mkdir()
    header = "query-id\tcorpus-id\tscore\n"
    (beir / "qrels/test.tsv").write_text(header + "q0\ta\t1\nq0\tb\t2\nq1\ta\t0\n")
    (beir / "qrels/train.tsv").write_text(header + "q1\tb\t1\r\n")
    questions = {(q.question, q.purpose): q.chunk_texts for q in read_labelled([beir], "test")}
    assert questions == {
        ("Why 0?", "test"): ("Bloom It takes hold.", "Close the gates."),
        ("Why 1?", "test"): (),  # judged, and nothing is relevant
        ("Why 1?", "train"): ("Close the gates.",),
    } | {("Why 2?", "test"): ()}  # judged nowhere: reported, not dropped


def test_qrels_may_be_those_of_trec_and_take_the_default_purpose(beir):
    (beir / "qrels.tsv").write_text("q0 0 a 1\nq0 0 gone 1\nq1 0 b 0\nq2 0 b 1\n")
    questions = read_labelled([beir], "train")
    assert [q.chunk_texts for q in questions] == [
        ("Bloom It takes hold.",),
        (),
        ("Close the gates.",),
    ]
    assert {q.purpose for q in questions} == {"train"}
    assert {q.source for q in questions} == {"beir"}


def test_a_beir_folder_that_does_not_fit_together_is_named(beir):
    with pytest.raises(SettingsError, match=r"beir: has neither qrels\.tsv nor"):
        read_labelled([beir], "test")
    (beir / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\nq1\ta\n")
    with pytest.raises(SettingsError, match=r"qrels\.tsv: .*; line 2: Query id, corpus id and"):
        read_labelled([beir], "test")
    header = "query-id\tcorpus-id\tscore\n"
    (beir / "qrels.tsv").write_text(f"{header}q9\ta\t1\nq1\ta\t1\nq1\tz\t1\nq2\tb\n")
    assert [q.question for q in read_labelled([beir], "test") if q.texts] == ["Why 1?"]
    assert [(bad.place, bad.reason[:30]) for bad in read_bad_rows([beir], "test")] == [
        ("line 5", "Query id, corpus id and score "),
        ("qrels.tsv, line 2", "query 'q9' is not among the qu"),
        ("qrels.tsv, line 4", "document 'z' is not in the cor"),
    ]


# Folders of datasets.


def test_a_dataset_saved_to_disk_is_read_with_its_labels(tmp_path):
    from datasets import ClassLabel, Dataset

    rows = [{**ROW, "page": 3, "purpose": 1}, {**ROW, "page": None, "purpose": 0}]
    labels = ClassLabel(names=["train", "test"])
    Dataset.from_list(rows).cast_column("purpose", labels).save_to_disk(tmp_path / "train")
    questions = read_labelled([tmp_path / "train"], "test")
    assert questions == [
        asked(page=3, source="train"),
        asked(purpose="train", source="train"),
    ]


def test_the_splits_of_a_dataset_say_what_its_rows_are_for_where_there_are_several(tmp_path):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([ROW])
    splits = DatasetDict({"train": rows, "validation": rows, "test": rows})
    splits.save_to_disk(tmp_path / "several")
    purposes = [q.purpose for q in read_labelled([tmp_path / "several"], "test")]
    assert sorted(purposes) == ["test", "test", "train"]
    DatasetDict({"train": rows}).save_to_disk(tmp_path / "one")
    assert [q.purpose for q in read_labelled([tmp_path / "one"], "test")] == ["test"]


def test_a_clone_of_a_dataset_is_read_from_its_data_files(tmp_path):
    from datasets import Dataset

    folder = tmp_path / "golden"
    (folder / "data").mkdir(parents=True)
    (folder / ".cache").mkdir()
    Dataset.from_list([ROW]).to_parquet(folder / "data/test-00000-of-00001.parquet")
    write(folder / "data/train.jsonl", ROW, ROW)
    write(folder / ".cache/train.jsonl", ROW)
    (folder / "README.md").write_text("# Golden")
    questions = read_labelled([folder], "test")
    assert [(q.purpose, q.source) for q in questions] == [
        ("test", "golden"),
        ("train", "golden"),
        ("train", "golden"),
    ]


def test_a_folder_or_file_that_holds_no_dataset_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"has no corpus\.jsonl, records\.json, state\.json"):
        read_labelled([tmp_path], "test")
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(SettingsError, match=r"rows\.parquet: is no file of a dataset"):
        read_labelled([tmp_path], "test")


# Argilla.


def record(responses: object = None, **metadata: object) -> dict:
    """A record as Argilla 2's `records.to_json` writes it."""
    return {
        "id": "5d2c",
        "status": "completed",
        "fields": {"question": "Why?", "chunk": "Because."},
        "metadata": metadata,
        "suggestions": {"question": {"value": "Whence?", "score": None, "agent": "llm"}},
        "responses": responses or {},
        "vectors": {},
        "_server_id": None,
    }


def read_records(tmp_path: Path, *records: dict) -> list[LabelledQuestion]:
    return read_labelled([write_json(tmp_path / "records.json", list(records))], "test")


def test_a_record_of_argilla_has_its_texts_in_fields_and_the_rest_in_metadata(tmp_path):
    plain, placed = read_records(
        tmp_path, record(), record(file_name="rig.pdf", page=3, purpose="train")
    )
    assert plain == asked(
        question="Why?", file_name=None, source="records.json", chunk_texts=("Because.",)
    )
    assert (placed.file_name, placed.page, placed.purpose) == ("rig.pdf", 3, "train")


def test_a_reviewers_text_replaces_the_question_and_a_suggestion_does_not(tmp_path):
    edited = {"edited_question": [{"value": "Why, then?", "user_id": "u1"}]}
    blank = {"edited_question": [{"value": " ", "user_id": "u1"}]}
    draft = {"edited_question": [{"value": "W", "user_id": "u1", "status": "draft"}]}
    records = [record(responses) for responses in (edited, blank, draft)]
    assert [q.question for q in read_records(tmp_path, *records)] == ["Why, then?", "Why?", "Why?"]


def test_a_reviewer_may_have_written_the_question_for_a_passage(tmp_path):
    written = record({"question": [{"value": "Why?", "user_id": "u1"}]})
    [question] = read_records(tmp_path, written | {"fields": {"text": "Because."}})
    assert (question.question, question.chunk_texts) == ("Why?", ("Because.",))


def test_a_rejected_record_is_read_as_rejected(tmp_path):
    def answered(name: str, *values: object, status: str = "submitted") -> dict:
        return {name: [{"value": v, "user_id": "u", "status": status} for v in values]}

    records = [
        record(answered("keep", "yes")),
        record(answered("keep", "yes", "No")),
        record(answered("verdict", "discard")),
        record(answered("keep", ["yes", "No"])),
        record(answered("keep", "yes", status="discarded")),
        record(answered("keep", "no", status="draft")),
        record(status="JUDGED_POOR"),
        record(answered("keep", "yes"), status="JUDGED_POOR"),
    ]
    rejected = "REJECTED_BY_REVIEWER"
    assert [q.dropped for q in read_records(tmp_path, *records)] == [
        None,
        rejected,
        rejected,
        rejected,
        rejected,
        None,
        "JUDGED_POOR",
        None,
    ]


def test_records_of_argilla_1_are_read_too(tmp_path):
    responses = [
        {
            "values": {"edited_question": {"value": "Why, then?"}},
            "status": "submitted",
            "user_id": "u",
        },
    ]
    discarded = [{"values": {}, "status": "discarded", "user_id": "u"}]
    edited, dropped = read_records(tmp_path, record(responses), record(discarded))
    assert (edited.question, edited.dropped) == ("Why, then?", None)
    assert dropped.dropped == "REJECTED_BY_REVIEWER"


def test_the_hubs_datasets_of_argilla_1_are_read_too(tmp_path):
    def answer(value: str, status: str = "submitted") -> list[dict]:
        return [{"user_id": "u", "value": value, "status": status}]

    common = {"question": "Why?", "chunk": "Because.", "metadata": '{"file_name": "rig.pdf"}'}
    rows = [
        {**common, "edited_question": answer("Why, then?"), "keep": answer("yes")},
        {**common, "edited_question": answer("W", "draft"), "keep": answer("no")},
    ]
    edited, dropped = read_labelled([write(tmp_path / "q.jsonl", *rows)], "test")
    assert (edited.question, edited.file_name, edited.dropped) == ("Why, then?", "rig.pdf", None)
    assert (dropped.question, dropped.dropped) == ("Why?", "REJECTED_BY_REVIEWER")


def test_records_of_before_argillas_feedback_are_read_too(tmp_path):
    record = {"inputs": {"question": "Why?", "chunk": "Because."}, "metadata": {"page": 3}}
    rows = [
        {**record, "annotation": "yes", "status": "Validated"},
        {**record, "annotation": "no", "status": "Validated"},
        {**record, "annotation": None, "status": "Discarded"},
    ]
    kept, *dropped = read_labelled([write(tmp_path / "q.jsonl", *rows)], "test")
    assert (kept.question, kept.page, kept.dropped) == ("Why?", 3, None)
    assert [q.dropped for q in dropped] == ["REJECTED_BY_REVIEWER"] * 2


def test_argillas_folder_and_its_dataset_are_read_like_its_records(tmp_path):
    from datasets import Dataset

    write_json(tmp_path / "reviewed/records.json", [record(file_name="rig.pdf")])
    write_json(tmp_path / "reviewed/settings.json", {"fields": []})
    columns = {
        "id": "5d2c",
        "status": "completed",
        "question": "Why?",
        "chunk": "Because.",
        "file_name": "rig.pdf",
        "edited_question.responses": ["Whither?", "Why, then?"],
        "edited_question.responses.users": ["u", "v"],
        "edited_question.responses.status": ["draft", "submitted"],
        "keep.responses": None,
        "keep.responses.users": None,
        "keep.responses.status": None,
    }
    rejected = {**columns, "keep.responses": ["no"], "keep.responses.status": ["submitted"]}
    Dataset.from_list([columns, rejected]).save_to_disk(tmp_path / "flat")
    [folder] = read_labelled([tmp_path / "reviewed"], "test")
    edited, dropped = read_labelled([tmp_path / "flat"], "test")
    assert (folder.question, folder.file_name, folder.source) == ("Why?", "rig.pdf", "reviewed")
    assert (edited.question, edited.chunk_texts) == ("Why, then?", ("Because.",))
    assert (edited.dropped, dropped.dropped) == (None, "REJECTED_BY_REVIEWER")


# Reading once.


def test_a_file_is_read_once_and_again_when_it_changes(tmp_path):
    file = write(tmp_path / "q.jsonl", ROW)
    [first] = read_labelled([file], "test")
    assert read_labelled([file], "test")[0] is first
    assert read_labelled([file], "train")[0].purpose == "train"

    times = file.stat()
    write(file, ROW | {"question": ROW["question"].replace("How", "HOW")})
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # neither size nor time tell
    [changed] = read_labelled([file], "test")
    assert changed.question.startswith("HOW")

    file.unlink()
    with pytest.raises(SettingsError):
        read_labelled([file], "test")


def test_a_folder_is_read_again_when_a_file_in_it_changes(tmp_path):
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    write(folder / "data" / "train.jsonl", ROW)
    [first] = read_labelled([folder], "test")
    assert read_labelled([folder], "test")[0] is first
    write(folder / "data" / "more.jsonl", ROW | {"question": "Why?"})
    assert sorted(q.question for q in read_labelled([folder], "test")) == [ROW["question"], "Why?"]


def test_what_was_read_is_not_changed_by_who_asked_for_it(tmp_path):
    file = write(tmp_path / "q.jsonl", ROW)
    read_labelled([file], "test").clear()
    assert read_labelled([file], "test")
