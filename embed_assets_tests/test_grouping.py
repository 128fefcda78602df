"""Documents are in partitions by their ids alone; a run's tags say which of them it makes."""

from collections.abc import Sequence
from pathlib import PurePosixPath

import pytest
from annotated_types import Le

from embed_assets.automation.plan import batches
from embed_assets.grouping import NAMED, ONE_EACH, Grouping, is_shared
from embed_assets.partitions import DOCUMENTS_PER_RUN, document_id
from embed_assets.settings import Settings

IDS = [document_id(PurePosixPath(f"{'of a long path/' * 9}{n}.pdf")) for n in range(300)]
FEW = Grouping(7)


def run_of(grouping: Grouping, documents: Sequence[str], known: Sequence[str] = IDS) -> list[str]:
    """What a run makes that the plan asks for, of the documents that are known."""
    partitions = grouping.partitions_of(documents)
    return grouping.documents_of(partitions, grouping.tags(documents), lambda: known)


def test_each_document_has_a_partition_of_its_own_unless_they_share_some():
    assert ONE_EACH.partitions_of(IDS) == IDS
    assert ONE_EACH.tags(IDS) == {}
    assert len(FEW.partitions_of(IDS)) == 7


def test_a_documents_partition_depends_on_nothing_else():
    """To the letter: by another key all of Dagster's history would be of other partitions."""
    assert Grouping(1000).partition_of("manual-0a1b2c3d") == "group_0682_of_1000"


def test_no_partition_of_one_grouping_is_one_of_another():
    groupings = [ONE_EACH, FEW, Grouping(8), Grouping(70)]
    keys = [key for grouping in groupings for key in grouping.partitions_of(IDS)]
    assert len(keys) == len(set(keys))
    assert [is_shared(key) for key in keys] == [key not in IDS for key in keys]


@pytest.mark.parametrize("grouping", [ONE_EACH, FEW])
def test_a_run_makes_the_documents_that_it_was_asked_for_and_no_others(grouping):
    assert run_of(grouping, IDS[3:60:7]) == IDS[3:60:7]


def test_a_run_that_names_no_documents_makes_all_that_are_known_in_its_partitions():
    partition = FEW.partition_of(IDS[0])
    made = FEW.documents_of([partition], {}, lambda: IDS)
    assert made == [key for key in IDS if FEW.partition_of(key) == partition]


def test_a_run_that_waited_while_the_grouping_became_another_makes_nothing_by_it():
    asked = Grouping(8)
    made = FEW.documents_of(asked.partitions_of(IDS), asked.tags(IDS), lambda: IDS)
    assert made == []


def test_a_tag_says_nothing_of_names_and_is_none_that_postgres_refuses():
    limits = Settings.model_fields["documents_per_run"].metadata
    [most] = [limit.le for limit in limits if isinstance(limit, Le)]
    assert isinstance(most, int)
    [tag] = FEW.tags(IDS[:most]).values()
    assert len(tag.split()) == most
    assert "path" not in tag
    assert len(NAMED + tag) < 2600


def test_partitions_without_documents_are_those_in_which_none_is():
    assert FEW.without(FEW.partitions_of(IDS), IDS) == []
    emptied = FEW.partition_of(IDS[0])
    left = [key for key in IDS if FEW.partition_of(key) != emptied]
    assert FEW.without(["made-up", *FEW.partitions_of(IDS)], left) == ["made-up", emptied]


def test_runs_cover_neighbours_and_between_them_every_document_once():
    grouping, wanted = Grouping(40), IDS[::3]
    order = grouping.partitions_of(IDS)
    made = batches(order, wanted, grouping=grouping)
    assert sorted(key for run in made for key in run) == sorted(wanted)
    for run in made:
        assert len(run) <= DOCUMENTS_PER_RUN
        places = [order.index(grouping.partition_of(key)) for key in run]
        assert places == sorted(places)
        assert set(places) == set(range(places[0], places[-1] + 1))
        assert run_of(grouping, run) == sorted(run, key=IDS.index)
    assert len(made) < len(order), "partitions share runs"
