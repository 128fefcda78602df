"""When a sensor trains again: the policy's rules, and what each of them says."""

from dataclasses import replace
from datetime import timedelta

import pytest

from embed_assets.automation.plan import FORGOTTEN, INGEST, Until, Work
from embed_assets.automation.retraining import RetrainingPolicy, Untrained
from embed_assets_tests.automation.told import BUDGET, LATER, NOW, SOON, Home

HOUR = timedelta(hours=1)
POLICY = RetrainingPolicy(share=0.05, wait=24 * HOUR, pause=HOUR)
FEW = Untrained(
    pairs=1102, new=34, since=NOW - 20 * HOUR, trained_at=NOW - 48 * HOUR, scored_at=NOW - 2 * HOUR
)
MANY = replace(FEW, new=56)
ALL = ("base_eval", "finetuned_model", "comparison")
TESTED = ("base_eval", "comparison")


@pytest.fixture
def home() -> Home:
    """A model, and pairs that differ from those that it was trained on."""
    made = Home()
    made.ingest("a", "b")
    made.train()
    made.train("training_pairs", training="t2", testing="e2")
    made.untrained = FEW
    return made


def to_train(home: Home, **policy: object) -> tuple[str, ...]:
    return home.to_train(**{"retraining": POLICY, **policy})


def why(home: Home, **policy: object) -> str | None:
    return home.waits("finetuned_model", **{"retraining": POLICY, **policy})


def test_few_new_pairs_wait_for_more_or_for_their_time_and_say_how_many_there_are(home):
    assert "finetuned_model" not in to_train(home)
    assert why(home) == (
        "34 new pairs, 3.1 % of 1,102: waits for 5 % or until 2026-11-26 16:00 UTC"
    )


def test_enough_new_pairs_train_at_once(home):
    home.untrained = MANY
    assert to_train(home) == ALL


@pytest.mark.parametrize(("new", "changed", "removed"), [(20, 20, 16), (0, 56, 0), (0, 0, 56)])
def test_changed_and_removed_pairs_count_as_new_ones_do(home, new, changed, removed):
    home.untrained = replace(FEW, new=new, changed=changed, removed=removed)
    assert to_train(home) == ALL


def test_few_pairs_train_when_the_oldest_change_has_waited_long_enough(home):
    assert "finetuned_model" not in to_train(home, now=NOW + 3.9 * HOUR)
    assert to_train(home, now=NOW + 4 * HOUR) == ALL


@pytest.mark.parametrize("policy", [{"share": 0.0}, {"wait": timedelta(0)}])
def test_a_share_or_a_wait_of_nothing_trains_on_any_change(home, policy):
    home.untrained = replace(FEW, new=1)
    assert to_train(home, retraining=replace(POLICY, **policy)) == ALL


def test_between_two_trainings_there_is_a_pause(home):
    home.untrained = replace(MANY, trained_at=NOW - HOUR / 2)
    assert "finetuned_model" not in to_train(home)
    said = why(home) or ""
    assert said.startswith("56 new pairs, 5.1 % of 1,102: trained at 2026-11-26 11:30 UTC")
    assert said.endswith("again from 2026-11-26 12:30 UTC on")
    assert to_train(home, now=NOW + HOUR / 2) == ALL
    assert to_train(home, retraining=replace(POLICY, pause=timedelta(0))) == ALL


def test_the_first_model_waits_for_nothing():
    home = Home()
    home.ingest("a")
    home.train("training_pairs")
    home.untrained = Untrained(pairs=20, new=20, since=NOW)
    assert to_train(home) == ALL


def test_where_there_is_too_little_to_train_on_nothing_is_asked_for_and_that_is_said():
    home = Home()
    home.ingest("a")
    home.untrained = Untrained(too_few="Too few questions to train on: 3 for train missing")
    assert to_train(home) == ()
    assert (home.waits("training_pairs") or "").startswith("Too few questions")
    assert to_train(home, asked_at=NOW) != (), "a person is told by the run"


def test_what_was_forgotten_is_trained_away_at_once(home):
    home.untrained = replace(FEW, new=0, trained_at=NOW, forgotten=True)
    assert to_train(home) == ALL
    home.train()
    assert to_train(home) == ("finetuned_model", "comparison"), "though its pairs are the same"
    step = home.plan(retraining=POLICY).corpus_step
    assert step is not None
    assert step.reason == FORGOTTEN


def test_a_changed_setting_waits_for_the_pause_alone(home):
    home.train()
    home.untrained = replace(FEW, new=0)
    versions = {"finetuned_model": "2"}
    other = {**dict.fromkeys(["training_pairs", *ALL], "1"), **versions}
    for asset in ("raw_pdfs", "parsed_markdown", "chunks", "synthetic_questions"):
        other[asset] = "1"
    assert home.to_train(other, retraining=POLICY) == ("finetuned_model", "comparison")
    home.untrained = replace(home.untrained, trained_at=NOW)
    assert home.to_train(other, retraining=POLICY) == ()


def test_a_person_waits_for_nothing(home):
    home.untrained = replace(FEW, trained_at=NOW)
    assert to_train(home, asked_at=NOW) == ALL


def test_new_test_questions_are_scored_at_once_and_train_nothing(home):
    home.train(training="t2")
    home.train("training_pairs", training="t2", testing="e3")
    home.untrained = replace(FEW, new=0, trained_at=NOW, scored_at=NOW)
    assert to_train(home) == TESTED


def test_while_a_training_waits_questions_are_scored_but_not_without_a_pause(home):
    assert to_train(home) == TESTED
    home.untrained = replace(FEW, scored_at=NOW - HOUR / 2)
    assert to_train(home) == ()
    said = home.waits("base_eval", retraining=POLICY)
    assert said == "scored from 2026-11-26 12:30 UTC on, or after the training"


def test_one_training_is_asked_for_at_a_time(home):
    home.untrained = MANY
    home.work = Work(training=True)
    assert to_train(home) == ()
    waits = [wait.until for wait in home.plan(retraining=POLICY).waiting]
    assert set(waits) == {Until.RUN_ENDS}


def test_after_a_failed_run_a_training_waits_its_time(home):
    home.untrained = MANY
    home.work = Work(training_paused_until=SOON)
    assert to_train(home) == ()
    assert why(home) == "the last run failed; it is tried again from 2026-11-26 12:01 UTC on"
    assert to_train(home, now=LATER) == ALL
    assert to_train(home, asked_at=NOW) == ALL


def test_after_a_failed_run_new_pairs_are_made_all_the_same(home):
    home.work = Work(training_paused_until=SOON)
    home.ingest("c")
    assert to_train(home) == ("training_pairs",)


@pytest.mark.parametrize("work", [Work(), Work(ingesting=True, busy=True)])
def test_documents_that_never_cease_to_come_do_not_put_off_a_training_for_ever(home, work):
    home.work = work
    home.put("new")
    assert to_train(home) == ()
    assert home.waits("training_pairs", retraining=POLICY) == "documents come first"
    later = NOW + 4 * HOUR
    assert to_train(home, now=later) == ALL
    plan = home.plan(retraining=POLICY, now=later)
    assert bool(plan.document_steps) is not work.ingesting
    home.work = replace(work, training=True)
    assert to_train(home, now=later) == ()


@pytest.mark.parametrize("forgotten", [False, True])
def test_what_was_forgotten_waits_for_no_documents(home, forgotten):
    home.untrained = replace(MANY, since=None, forgotten=forgotten)
    home.work = Work(ingesting=True, busy=True)
    assert (to_train(home) == ALL) is forgotten


def test_documents_that_nobody_asks_for_hold_up_no_training(home):
    home.untrained = MANY
    home.put("new")
    assert to_train(home) == ()
    assert to_train(home, ingests=False) == ALL


@pytest.mark.parametrize(("trained_at", "hours"), [(NOW - 48 * HOUR, 24), (None, 1)])
def test_a_training_is_put_off_by_documents_for_its_wait_and_the_first_for_its_pause(
    home, trained_at, hours
):
    home.untrained = replace(MANY, since=None, trained_at=trained_at)
    home.put("new")
    assert home.plan().documents_first
    since = NOW - hours * HOUR
    assert to_train(home, put_off_since=since + HOUR / 2) == ()
    assert to_train(home, put_off_since=since) == ALL


def test_pairs_that_became_too_few_wait_for_more(home):
    home.take("b")
    home.remove("b")
    home.untrained = replace(FEW, too_few="Too few questions to train on: 9 for train missing")
    assert to_train(home) == ()
    assert (home.waits("training_pairs") or "").startswith("Too few questions")
    home.train()
    assert home.plan(retraining=POLICY).waiting == (), "it is said of stale pairs alone"


# Documents that are lost.


def three_of_four_lost() -> Home:
    home = Home()
    home.ingest("a", "b", "c", "d")
    home.take("a", "b", "c")
    return home


def test_losing_many_documents_at_once_waits_for_a_person():
    home = three_of_four_lost()
    plan = home.plan(lost_share=1 / 3)
    assert (plan.remove, plan.lost) == ((), ("a", "b", "c"))
    [wait] = [wait for wait in plan.waiting if wait.until is Until.PERSON]
    assert wait.reason == (
        "3 of the 4 documents on record are gone (a.pdf, b.pdf, c.pdf): "
        "more than 33 % at once wait until a person agrees"
    )


def test_with_a_persons_agreement_they_go():
    plan = three_of_four_lost().plan(lost_share=1 / 3, agreed=True)
    assert (plan.remove, plan.lost) == (("a", "b", "c"), ())


def test_lost_documents_hold_up_nothing_else():
    home = three_of_four_lost()
    home.put("new")
    plan = home.plan(lost_share=1 / 3)
    assert plan.add == ("new",)
    assert len(plan.document_steps) == 1
    home.take("new")
    assert home.plan(lost_share=1 / 3).corpus_step is not None


@pytest.mark.parametrize(("taken", "known"), [("a", "ab"), ("a", "abc"), ("ab", "abcdef")])
def test_a_third_of_the_documents_may_go_at_once_and_a_single_one_always(taken, known):
    home = Home()
    home.ingest(*known)
    home.take(*taken)
    assert home.plan(lost_share=1 / 3).remove == tuple(taken)


def test_a_new_budget_asks_what_the_last_one_left(home):
    home = Home()
    home.ingest("a")
    home.fail("synthetic_questions", BUDGET, "a", NOW)
    assert home.due("a") == ()
    assert home.due("a", budget_since=NOW - HOUR) == ()
    assert home.due("a", budget_since=NOW + HOUR) == ("synthetic_questions",)
    assert home.waits(INGEST) is None
