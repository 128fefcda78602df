"""What is due and what waits, and why: the plan's rules, without a folder, warehouse or run."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from embed_assets.automation.plan import (
    ADDITIONS_AT_ONCE,
    CHANGED_FILE,
    MOVES_AT_ONCE,
    NEW,
    NOT_MADE,
    OTHER_CODE,
    OTHER_INPUT,
    REMOVALS_AT_ONCE,
    Plan,
    Step,
    Until,
    Wait,
    Work,
    batches,
    first_part,
)
from embed_assets.documents.folder import FoundDocument
from embed_assets.graph import CORPUS_ASSETS, DOCUMENT_ASSETS, GRAPH
from embed_assets.grouping import DOCUMENTS_PER_RUN, Grouping
from embed_assets.resources.ledger import (
    PAUSES,
    UNPARTITIONED,
    Cause,
    Failure,
    Materialization,
)
from embed_assets_tests.automation.told import (
    AFTER_PARSING,
    BUDGET,
    KILLED,
    LATER,
    NO_ANSWER,
    NOW,
    SOON,
    UNREADABLE,
    VERSIONS,
    WRITTEN,
    Home,
    changed,
)


@pytest.fixture
def home() -> Home:
    """Document a, brought up to date."""
    made = Home()
    made.ingest("a")
    return made


@pytest.fixture
def trained() -> Home:
    """Two documents brought up to date, and everything made from them."""
    made = Home()
    made.ingest("a", "b")
    made.train()
    return made


# Documents.


def test_a_new_document_needs_everything_and_a_partition(home):
    home.put("new")
    plan = home.plan()
    assert plan.steps == (Step(DOCUMENT_ASSETS, ("new",), NEW),)
    assert (plan.add, plan.remove) == (("new",), ())


def test_new_documents_are_taken_in_the_order_in_which_they_were_found():
    home = Home()
    home.put("c", "a", "b")
    assert home.plan().add == ("c", "a", "b")
    assert home.plan().steps[0].documents == ("c", "a", "b")


def test_a_tick_takes_the_first_of_very_many_partitions_and_leaves_the_rest():
    many = tuple(f"{number:05}" for number in range(50_000))
    part = first_part(Plan(add=many, remove=many, moved={f"sub-{key}": key for key in many}))
    assert part.add == many[:ADDITIONS_AT_ONCE]
    assert part.remove == many[:REMOVALS_AT_ONCE]
    assert len(part.moved) == MOVES_AT_ONCE


def test_a_document_brought_up_to_date_needs_nothing(home):
    assert home.due("a") == ()
    assert not home.plan().changes_documents


def test_a_file_that_changed_is_read_first_for_perhaps_only_its_time_has_changed(home):
    home.put("a", written=NOW)
    assert home.plan().steps == (Step(("raw_pdfs",), ("a",), CHANGED_FILE),)
    home.make("raw_pdfs", "a", "raw_pdfs v1")
    assert home.due("a") == ()


def test_a_file_with_other_bytes_makes_what_follows_from_it_stale(home):
    home.ingest("b")
    home.put("a", size=5)
    home.make("raw_pdfs", "a", "other bytes")
    step = Step(("parsed_markdown", *AFTER_PARSING), ("a",), OTHER_INPUT)
    assert home.plan().steps == (step,)


def test_a_new_parser_makes_everything_after_the_files_stale(home):
    step = Step(DOCUMENT_ASSETS[1:], ("a",), OTHER_CODE)
    assert home.plan(changed("parsed_markdown")).steps == (step,)


def test_another_generator_makes_the_questions_alone_stale(home):
    assert home.due("a", changed("synthetic_questions")) == ("synthetic_questions",)


def test_what_came_out_the_same_makes_nothing_after_it_stale(home):
    home.make("parsed_markdown", "a", "parsed_markdown v1", code="2")
    assert home.due("a", changed("parsed_markdown")) == ()


def test_what_a_killed_run_left_undone_is_made_and_no_more():
    home = Home()
    home.put("a")
    for asset in DOCUMENT_ASSETS[:2]:
        home.make(asset, "a", f"{asset} v1")
    assert home.due("a") == AFTER_PARSING


def test_a_document_without_text_is_up_to_date_too():
    home = Home()
    home.put("a")
    for asset in DOCUMENT_ASSETS:
        home.make(asset, "a", "")
    assert home.due("a") == ()


def test_documents_that_need_the_same_for_the_same_reason_are_one_step(home):
    home.ingest("b")
    home.put("c", "d")
    steps = home.plan(changed("chunks")).steps
    assert steps == (
        Step(AFTER_PARSING, ("a", "b"), OTHER_CODE),
        Step(DOCUMENT_ASSETS, ("c", "d"), NEW),
    )


def test_a_file_that_is_still_changing_waits(home):
    home.put("new")
    home.put("a", size=5)
    home.settling = {"new", "a"}
    assert home.plan().document_steps == home.plan().add == ()
    assert home.waits("new.pdf") == home.waits("a.pdf") == "still changing"


# Documents that left, came back or moved.


def test_a_document_that_left_is_removed(home):
    home.ingest("b")
    home.take("a")
    assert home.plan().remove == ("a",)


def test_a_partition_that_nothing_was_ever_read_of_goes_with_its_file(home):
    home.partitions.append("never-read")
    assert home.plan().remove == ("never-read",)


def test_the_one_file_never_read_may_be_renamed():
    home = Home()
    home.partitions.append("never-read")
    home.put("other-name")
    plan = home.plan()
    assert (plan.refused, plan.remove, plan.add) == (None, ("never-read",), ("other-name",))


def test_rows_without_a_partition_go_with_their_file(home):
    home.ingest("b")
    home.partitions.remove("b")
    home.take("b")
    assert home.plan().remove == ("b",)


@pytest.mark.parametrize("work", [Work(busy=True), Work(ingesting=True, busy=True)])
def test_a_removed_document_waits_while_a_run_may_use_it_and_that_is_said(home, work):
    home.ingest("b")
    home.take("a")
    home.work = work
    assert home.plan().remove == ()
    assert home.waits("a.pdf") == "gone, and a run may still use it"
    home.work = Work()
    assert home.plan().remove == ("a",)


def test_nothing_is_trained_on_a_removed_document_that_waits(home):
    home.ingest("b")
    home.take("a")
    home.work = Work(busy=True)
    assert home.to_train() == ()
    assert home.waits("training_pairs") == "documents come first"


def test_while_a_run_is_at_work_the_corpus_waits_for_what_it_makes(home):
    home.work = Work(busy=True)
    plan = home.plan()
    assert plan.corpus_step is None
    assert [wait.what for wait in plan.waiting if wait.until is Until.RUN_ENDS] == list(
        CORPUS_ASSETS
    )
    home.train()
    assert home.plan().waiting == (), "nothing is due, and nothing waits"


def test_a_failed_run_with_settings_of_its_own_makes_nothing_stale(home):
    home.train()
    home.fail("finetuned_model", Failure(Cause.FAILED, "epochs: must be 1 at least"))
    assert home.to_train(asked_at=LATER, now=LATER) == ()
    home.fail("base_eval", NO_ANSWER)
    assert home.to_train(asked_at=LATER, now=LATER) == ("base_eval", "comparison")


def test_after_a_failed_ingest_documents_wait_their_time_unless_a_person_asks(home):
    home.put("new")
    home.work = Work(paused_until=SOON)
    assert home.plan().document_steps == ()
    assert home.waits("ingest").startswith("the last ingest failed or was stopped; ")
    assert home.to_train() == CORPUS_ASSETS, "it is not held up by what nobody asks for now"
    assert home.due("new", asked_at=NOW) == DOCUMENT_ASSETS
    assert home.due("new", now=LATER) == DOCUMENT_ASSETS


def test_a_pause_is_no_wait_where_no_document_is_due(home):
    home.work = Work(paused_until=SOON)
    plan = home.plan()
    assert plan.corpus_step
    assert plan.waiting == ()


def test_a_document_that_moved_waits_while_a_run_may_use_it(home):
    home.take("a")
    home.put("sub-a")
    home.moved = {"sub-a": "a"}
    home.work = Work(busy=True)
    plan = home.plan()
    assert (plan.moved, plan.remove, plan.add, plan.document_steps) == ({}, (), (), ())
    assert Wait("sub-a.pdf", "moved, and a run may still use it", Until.RUN_ENDS) in plan.waiting


def test_while_a_run_ingests_no_document_is_due_and_that_is_said(home):
    home.put("new")
    home.work = Work(ingesting=True, busy=True)
    plan = home.plan()
    assert plan.steps == plan.add == ()
    assert home.waits("ingest") == "a run ingests: documents are looked at when it has ended"


def test_a_document_that_left_and_came_back_needs_everything(home):
    home.ingest("b")
    home.take("a")
    home.remove("a")
    home.put("a")
    assert home.due("a") == DOCUMENT_ASSETS


def test_a_document_that_moved_is_neither_new_nor_gone(home):
    home.take("a")
    home.put("sub-a")
    home.moved = {"sub-a": "a"}
    plan = home.plan()
    assert (plan.steps, plan.add, plan.remove) == ((), (), ())
    assert plan.moved == {"sub-a": "a"}
    assert plan.changes_documents


def test_documents_below_a_folder_that_can_not_be_listed_are_neither_gone_nor_lost(home):
    home.take("a")
    home.odd, home.unseen = {"share": "the folder can't be listed"}, {"a"}
    for agreed in (False, True):
        plan = home.plan(agreed=agreed)
        assert (plan.document_steps, plan.remove, plan.lost, plan.refused) == ((), (), (), None)
        assert Wait("share", "the folder can't be listed") in plan.waiting


@pytest.mark.parametrize("found", [(), ("c",)])
def test_a_folder_with_none_of_the_documents_on_record_is_refused(found):
    home = Home()
    home.ingest("a", "b")
    home.take("a", "b")
    home.put(*found)
    plan = home.plan()
    assert plan.refused == "none of the 2 documents on record is in the folder"
    assert plan == Plan(refused=plan.refused, lost=("a", "b"))


def test_a_folder_with_none_of_the_documents_is_taken_if_a_person_agrees(home):
    home.take("a")
    home.put("c")
    plan = home.plan(agreed=True)
    assert (plan.refused, plan.remove, plan.add) == (None, ("a",), ("c",))


def test_a_folder_with_one_known_document_left_is_the_same_folder(home):
    home.ingest("b")
    home.take("a")
    home.put("c")
    assert home.plan().refused is None


def test_a_folder_that_moved_whole_is_the_same_folder(home):
    home.take("a")
    home.put("sub-a")
    home.moved = {"sub-a": "a"}
    assert home.plan().refused is None


def test_a_home_without_documents_takes_any_folder():
    assert Home().plan().refused is None
    home = Home()
    home.put("a")
    assert home.plan().refused is None


# What was tried in vain.


@pytest.mark.parametrize("asset", DOCUMENT_ASSETS)
def test_what_failed_for_a_passing_reason_waits_for_its_time_and_is_due_then(asset):
    home = Home()
    home.put("a")
    for before in DOCUMENT_ASSETS[: DOCUMENT_ASSETS.index(asset)]:
        home.make(before, "a", f"{before} v1")
    home.fail(asset, KILLED, "a")
    # Chunks are embedded whatever becomes of the questions.
    meanwhile = ("chunk_embeddings",) if asset == "synthetic_questions" else ()
    assert home.due("a", now=SOON) == meanwhile
    said = f"{KILLED.error} (once; tried again from 2026-11-26 12:05 UTC on)"
    assert home.waits("a.pdf", now=SOON) == said
    [step] = home.plan(now=NOW + PAUSES[0]).document_steps
    assert step.assets == DOCUMENT_ASSETS[DOCUMENT_ASSETS.index(asset) :]
    assert step.reason == f"tried in vain before: {KILLED.cause}"


def test_what_failed_to_the_last_waits_for_a_change_or_a_person():
    home = Home()
    home.put("a")
    home.make("raw_pdfs", "a", "bytes")
    for _ in range(len(PAUSES) + 1):
        home.fail("parsed_markdown", KILLED, "a")
    assert home.due("a", now=LATER) == ()
    said = home.waits("a.pdf", now=LATER)
    assert said is not None
    assert said.endswith("(5 times; tried again when it changes, or when a person asks)")
    assert home.due("a", asked_at=SOON) == DOCUMENT_ASSETS[1:]


def test_a_command_tries_what_was_tried_before_it_once_more_and_once_only(home):
    home.make("raw_pdfs", "a", "other bytes")
    home.fail("parsed_markdown", KILLED, "a", at=NOW)
    assert home.due("a", asked_at=SOON, now=SOON) == DOCUMENT_ASSETS[1:]
    home.fail("parsed_markdown", KILLED, "a", at=SOON + timedelta(seconds=5))
    assert home.due("a", asked_at=SOON, now=SOON + timedelta(seconds=10)) == ()


@pytest.mark.parametrize("asset", ["parsed_markdown", "chunks"])
def test_an_attempt_with_other_code_is_void(home, asset):
    home.make("raw_pdfs", "a", "other bytes")
    home.fail(asset, KILLED, "a")
    due = home.due("a", changed(asset))
    assert due == DOCUMENT_ASSETS[1:]


def test_an_attempt_on_other_bytes_is_void(home):
    home.make("raw_pdfs", "a", "other bytes")
    home.fail("parsed_markdown", KILLED, "a")
    assert home.due("a") == ()
    home.make("raw_pdfs", "a", "yet other bytes")
    assert home.due("a") == DOCUMENT_ASSETS[1:]


def test_an_attempt_to_read_a_file_is_void_once_the_file_has_changed(home):
    home.put("a", written=NOW, size=5)
    for _ in range(len(PAUSES) + 1):
        home.fail("raw_pdfs", UNREADABLE, "a", at=SOON)
    assert home.due("a", now=LATER) == ()
    home.put("a", written=LATER, size=6)
    assert home.due("a", now=LATER) == ("raw_pdfs",)


def test_a_file_that_may_not_be_read_keeps_what_was_known_and_waits(home):
    home.put("a", written=NOW, size=5)
    home.fail("raw_pdfs", UNREADABLE, "a", at=NOW)
    assert home.due("a", now=SOON) == ()
    assert home.waits("a.pdf", now=SOON) is not None
    assert home.due("a", now=LATER)[0] == "raw_pdfs"


def test_one_document_that_waits_holds_up_no_other(home):
    home.put("b", "c")
    home.fail("raw_pdfs", UNREADABLE, "b")
    assert [step.documents for step in home.plan().steps] == [("c",)]


# Limits and budgets.


@pytest.fixture
def slow(home) -> Home:
    """Document a took longer than 600.4 s to parse."""
    home.fail("parsed_markdown", Failure(Cause.TIME_LIMIT, "took longer …", 600.4), "a")
    return home


@pytest.mark.parametrize("asked_at", [None, SOON])
def test_a_time_limit_is_not_tried_again_in_every_round_nor_by_whoever_asks(slow, asked_at):
    for limit in (600.4, 600, 60):
        assert slow.due("a", parse_timeout=limit, asked_at=asked_at, now=LATER) == ()


def test_a_time_limit_is_tried_again_once_the_limit_is_higher(slow):
    assert slow.due("a", parse_timeout=601) == DOCUMENT_ASSETS[1:]


def test_a_time_limit_holds_up_nothing(slow):
    slow.train()
    assert slow.plan().waiting == ()


def test_questions_that_were_not_asked_are_due_for_the_next_command_alone(home):
    home.fail("synthetic_questions", BUDGET, "a")
    assert home.due("a", now=LATER) == ()
    [step] = home.plan(asked_at=SOON).steps
    assert (step.assets, step.documents) == (("synthetic_questions",), ("a",))
    home.fail("synthetic_questions", BUDGET, "a", at=SOON + timedelta(seconds=1))
    assert home.due("a", asked_at=SOON, now=LATER) == ()


def test_questions_that_a_server_did_not_answer_are_due_after_a_pause(home):
    home.fail("synthetic_questions", NO_ANSWER, "a")
    assert home.due("a") == ()
    assert home.due("a", now=NOW + PAUSES[0]) == ("synthetic_questions",)


# Training.


def test_the_first_time_everything_is_made_in_order(home):
    assert home.to_train() == ("training_pairs", "base_eval", "finetuned_model", "comparison")


def test_when_everything_is_made_nothing_is_due(trained):
    assert trained.plan() == Plan()


def test_documents_come_first(trained):
    trained.put("c")
    assert trained.to_train() == ()
    assert trained.waits("training_pairs") == "documents come first"


@pytest.mark.parametrize("story", ["ingested", "removed", "chunks", "questions"])
def test_documents_that_changed_make_the_pairs_first(trained, story):
    if story == "ingested":
        trained.ingest("c")
    elif story == "removed":
        trained.take("a")
        trained.remove("a")
    elif story == "chunks":
        trained.make("chunks", "a", "chunks v2")
        trained.make("synthetic_questions", "a", "synthetic_questions v1")
        trained.make("chunk_embeddings", "a", "chunk_embeddings v1")
    else:
        trained.make("synthetic_questions", "a", "synthetic_questions v2")
    assert trained.to_train() == ("training_pairs",)


def test_a_new_document_without_text_trains_nothing(trained):
    trained.put("scan")
    trained.partitions.append("scan")
    held = ("bytes", "why there is none", "", "", "")
    for asset, holds in zip(DOCUMENT_ASSETS, held, strict=True):
        trained.make(asset, "scan", holds)
    assert trained.plan() == Plan()


@pytest.fixture
def with_more_questions(trained) -> Home:
    trained.make("synthetic_questions", "a", "synthetic_questions v2")
    return trained


def test_pairs_that_came_out_the_same_train_nothing(with_more_questions):
    with_more_questions.train("training_pairs")
    assert with_more_questions.to_train() == ()


def test_pairs_that_changed_make_everything_after_them(with_more_questions):
    with_more_questions.train("training_pairs", training="t2", testing="e2")
    assert with_more_questions.to_train() == ("base_eval", "finetuned_model", "comparison")


def test_a_new_test_question_scores_anew_and_trains_nothing(with_more_questions):
    with_more_questions.train("training_pairs", testing="e2")
    assert with_more_questions.to_train() == ("base_eval", "comparison")


def test_pairs_that_train_alone_score_no_base_model_anew(with_more_questions):
    with_more_questions.train("training_pairs", training="t2")
    assert with_more_questions.to_train() == ("finetuned_model", "comparison")


@pytest.mark.parametrize(
    ("asset", "expected"),
    [
        ("training_pairs", ("training_pairs",)),
        ("base_eval", ("base_eval", "comparison")),
        ("finetuned_model", ("finetuned_model", "comparison")),
        ("comparison", ("comparison",)),
    ],
)
def test_a_changed_setting_makes_what_it_shapes_and_what_follows(trained, asset, expected):
    assert trained.to_train(changed(asset)) == expected


def test_what_a_killed_training_left_undone_is_made_and_no_more(home):
    home.train("training_pairs", "base_eval")
    assert home.to_train() == ("finetuned_model", "comparison")


def test_a_model_trained_anew_is_compared_anew(trained):
    trained.make("finetuned_model", UNPARTITIONED, "another")
    assert trained.to_train() == ("comparison",)


def test_what_was_forgotten_is_made_again(trained):
    del trained.made["finetuned_model", UNPARTITIONED]
    assert trained.to_train() == ("finetuned_model", "comparison")


def test_documents_that_changed_while_the_pairs_were_made_make_them_stale(trained):
    before = trained.records.input_version("training_pairs")
    trained.make("synthetic_questions", "b", "synthetic_questions v2")
    pairs = trained.made["training_pairs", UNPARTITIONED]
    trained.made["training_pairs", UNPARTITIONED] = Materialization("1", before, "d", pairs.parts)
    assert trained.to_train() == ("training_pairs",)


def test_a_base_model_with_a_baseline_that_failed_is_scored_anew_by_the_next_command(trained):
    trained.fail("base_eval", NO_ANSWER)
    assert trained.plan(now=SOON) == Plan()
    [step] = trained.plan(asked_at=SOON).steps
    assert step == Step(("base_eval", "comparison"), (), "tried in vain before: call failed")
    trained.fail("base_eval", NO_ANSWER, at=SOON + timedelta(seconds=1))
    assert trained.to_train(asked_at=SOON, now=SOON + timedelta(seconds=2)) == ()


def test_a_training_that_failed_waits_and_what_hangs_on_it_too(with_more_questions):
    home = with_more_questions
    home.train("training_pairs", training="t2", testing="e2")
    home.fail("finetuned_model", Failure(Cause.FAILED, "no memory"))
    plan = home.plan(now=SOON)
    assert [step.assets for step in plan.steps] == [("base_eval",)]
    assert {wait.what for wait in plan.waiting} == {"finetuned_model", "comparison"}
    assert home.waits("comparison", now=SOON) == "finetuned_model waits"
    again = home.to_train(now=NOW + PAUSES[0])
    assert again == ("base_eval", "finetuned_model", "comparison")


def test_a_training_that_failed_on_other_pairs_is_tried_at_once(trained):
    trained.fail("finetuned_model", Failure(Cause.FAILED, "no memory"))
    trained.make("synthetic_questions", "a", "synthetic_questions v2")
    trained.train("training_pairs", training="t2")
    assert trained.to_train() == ("finetuned_model", "comparison")


def test_pairs_that_could_not_be_made_hold_up_all_that_is_made_of_them(home):
    home.fail("training_pairs", Failure(Cause.FAILED, "too few questions"))
    plan = home.plan(now=SOON)
    assert plan.steps == ()
    assert [wait.what for wait in plan.waiting] == list(CORPUS_ASSETS)
    assert plan.waiting[1] == Wait("base_eval", "training_pairs waits")


# Runs of neighbours.


@pytest.mark.parametrize(
    ("order", "wanted", "expected"),
    [
        ("abcde", "abd", ["ab", "d"]),
        ("abcdef", "abdef", ["ab", "def"]),
        ("a", "ax", ["a"]),
        ("abc", "", []),
    ],
)
def test_a_run_covers_only_neighbours(order: str, wanted: str, expected: Sequence[str]):
    assert batches(list(order), set(wanted)) == [list(run) for run in expected]


def test_a_run_covers_no_more_than_its_size():
    order = [f"{number:03}" for number in range(2 * DOCUMENTS_PER_RUN + 1)]
    made = batches(order, set(order))
    assert [len(run) for run in made] == [DOCUMENTS_PER_RUN, DOCUMENTS_PER_RUN, 1]
    assert [key for run in made for key in run] == order
    longer = batches(order, set(order), grouping=Grouping(per_run=DOCUMENTS_PER_RUN + 1))
    assert [len(run) for run in longer] == [DOCUMENTS_PER_RUN + 1, DOCUMENTS_PER_RUN]


def test_large_documents_share_a_run_only_as_far_as_memory_holds_them():
    sizes = dict.fromkeys("abcdefghij", 30)
    found = {
        key: FoundDocument(key, f"{key}.pdf", size * 1_000_000, WRITTEN)
        for key, size in sizes.items()
    }
    assert batches(list(sizes), set(sizes), found) == [[*"abcdefgh"], [*"ij"]]


def test_no_document_waits_for_the_end_of_a_large_one():
    sizes = {"a": 900, "b": 2, "c": 8, "d": 9, "e": 33, "f": 1}
    found = {
        key: FoundDocument(key, f"{key}.pdf", size * 1_000_000, WRITTEN)
        for key, size in sizes.items()
    }
    assert batches(list(sizes), set(sizes), found) == [["b", "c"], ["f"], ["a"], ["d", "e"]]


# The search index.


@pytest.fixture
def searched(trained) -> Home:
    trained.index_follows = False
    trained.index()
    return trained


def index_due(home: Home, versions=VERSIONS, **policy) -> str | None:
    step = home.plan(versions, **policy).index_step
    return step and step.reason


def test_an_index_of_what_is_there_is_not_due(searched):
    assert searched.plan() == Plan()


def test_documents_that_came_left_or_have_another_name_make_the_index_stale(searched):
    before = dict(searched.made)
    searched.ingest("c")
    assert index_due(searched) == OTHER_INPUT
    searched.take("c")
    searched.remove("c")
    assert searched.made == before
    assert index_due(searched) is None
    searched.made["chunk_embeddings", "z"] = searched.made.pop(("chunk_embeddings", "a"))
    assert index_due(searched) == OTHER_INPUT


def test_an_index_that_is_gone_is_made_again(searched):
    searched.work = Work(index_lost=True)
    assert index_due(searched) == NOT_MADE


def test_another_champion_embeds_all_documents_and_only_then_makes_the_index(searched):
    another = changed("chunk_embeddings", "search_index")
    assert searched.due("a", another) == ("chunk_embeddings",)
    assert index_due(searched, another) is None
    searched.make("chunk_embeddings", "a", "embedded", code="2")
    assert index_due(searched, another) is None, "it would mix two models"
    searched.make("chunk_embeddings", "b", "embedded", code="2")
    assert index_due(searched, another) == OTHER_CODE


def test_no_training_waits_for_embeddings_of_another_champion(searched):
    another = changed("chunk_embeddings", "search_index", "training_pairs")
    assert searched.due("a", another) == ("chunk_embeddings",)
    assert searched.to_train(another) == ("training_pairs",)


def test_documents_whose_files_wait_or_left_are_embedded_all_the_same(searched):
    another = changed("chunk_embeddings", "search_index")
    searched.put("a", written=LATER)
    searched.settling = {"a"}
    searched.take("b")
    [step] = searched.plan(another, lost_share=0).document_steps
    assert (step.assets, set(step.documents)) == (("chunk_embeddings",), {"a"})
    [step] = searched.plan(another, lost_share=0, agreed=False).document_steps
    assert "b" not in step.documents, "it goes"


def test_after_index_runs_that_failed_it_is_asked_for_later(searched):
    searched.ingest("c")
    searched.work = Work(index_paused_until=SOON)
    assert index_due(searched) is None
    assert index_due(searched, now=LATER) == OTHER_INPUT
    assert index_due(searched, asked_at=NOW) == OTHER_INPUT


def test_a_query_adapter_embeds_nothing_anew(searched):
    another = changed("search_index")
    assert searched.plan(another).document_steps == ()
    assert index_due(searched, another) == OTHER_CODE


def test_what_no_model_can_make_now_is_not_due(searched):
    unknown = {k: v for k, v in VERSIONS.items() if GRAPH[k].stage != "search"}
    assert searched.plan(unknown).steps == ()
    [wait] = searched.plan(unknown).waiting
    assert "its folder is gone" in wait.reason
    searched.fail("search_index", Failure(Cause.FAILED, "no champion"))
    assert searched.plan(unknown, now=LATER).steps == ()
    searched.put("new")
    assert searched.due("new", unknown) == DOCUMENT_ASSETS[:-1]


def test_documents_come_before_the_index_for_some_minutes(searched):
    searched.put("c")
    searched.ingest("d")
    searched.work = Work(indexed_at=NOW - timedelta(minutes=1))
    assert index_due(searched) is None
    assert searched.waits("search_index") == "documents come first"
    assert index_due(searched, asked_at=NOW) == OTHER_INPUT, "a person waits for none"
    searched.work = Work(indexed_at=NOW - timedelta(minutes=11))
    assert index_due(searched) == OTHER_INPUT


def test_an_index_that_a_run_makes_is_not_asked_for_again(searched):
    searched.ingest("c")
    searched.work = Work(indexing=True)
    assert index_due(searched) is None


def test_an_index_that_could_not_be_made_waits_for_its_time(searched):
    searched.ingest("c")
    searched.fail("search_index", Failure(Cause.FAILED, "no space left"))
    assert index_due(searched) is None
    assert "no space left" in (searched.waits("search_index") or "")
    assert index_due(searched, now=LATER) == OTHER_INPUT
