"""What only a cluster can do to the work: lose a node, be out of reach, not be installed."""

import os
import signal
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from embed_assets.documents.cutting import cut_documents
from embed_assets.documents.parsing import parse_documents
from embed_assets.errors import ProjectError
from embed_assets.models.card import ModelCard, model_card
from embed_assets.models.encoder import LocalEncoder
from embed_assets.models.spread import encode_on_ray
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.ray_actor import NodeLostError, Share
from embed_assets.resources.ray_cluster import places_of_models
from embed_assets.resources.ray_workers import RayWorkers, ray_models
from embed_assets.resources.workers import WorkerPool
from embed_assets.settings import Settings
from embed_assets.training.negatives import Part, mine_negatives, search_on_ray
from embed_assets_tests.documents.test_parsing import pdf, raw_pdfs
from embed_assets_tests.ray_cluster import two_nodes
from embed_assets_tests.resources.test_workers import do
from embed_assets_tests.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with two_nodes() as cluster:
        yield cluster


def pool(timeout: float = 60.0) -> WorkerPool:
    return WorkerPool(engine="ray", processes=0, timeout=timeout)


def test_there_are_as_many_workers_as_the_cluster_has_cpus_and_they_say_nothing(cluster, capfd):
    before = signal.getsignal(signal.SIGTERM)
    with pool().start(10) as workers:
        outcomes = list(workers.map(do, [("die", 1), *[("dawdle", n) for n in range(2, 6)]]))
        at_work = [t for t in threading.enumerate() if t.name.startswith("attends actor")]
    assert [o.result for o in outcomes] == [None, 4, 6, 8, 10]
    assert len(at_work) == 2
    assert signal.getsignal(signal.SIGTERM) is before
    time.sleep(1)  # what Ray says of a dead worker comes a little later
    assert capfd.readouterr().out == ""


def test_a_document_is_the_same_wherever_it_is_parsed_and_cut(cluster):
    files = {"a": pdf("The valve opens.", "Twice."), "b": pdf("It closes again.")}

    def make(workers: WorkerPool) -> tuple[pl.DataFrame, pl.DataFrame]:
        pages = parse_documents(raw_pdfs(files), list(files), workers).rows
        return pages, cut_documents(pages, {}, model_card(Settings()), workers).rows

    on_ray, here = make(pool(120)), make(WorkerPool(processes=1, timeout=120))
    assert [frame.height for frame in on_ray] == [3, 2]
    assert all(map(pl.DataFrame.equals, on_ray, here))


def gpus_of(_: int) -> tuple[list[str], str | None, str | None]:
    """The GPUs that Ray gave to this worker, those that others' code sees in it, and whose code it
    may run.
    """
    import ray

    visible, trusted = map(os.environ.get, ("CUDA_VISIBLE_DEVICES", "EMBED_ASSETS_TRUSTED_MODELS"))
    return [str(gpu) for gpu in ray.get_gpu_ids()], visible, trusted


def test_a_model_has_a_gpu_of_its_own_where_there_are_some(cluster, monkeypatch):
    monkeypatch.setenv("EMBED_ASSETS_TRUSTED_MODELS", "a/model")
    all_nodes, _ = cluster
    node = all_nodes.add_node(num_cpus=2, num_gpus=2)
    try:
        all_nodes.wait_for_nodes()
        with ray_models(9, 60.0) as models:
            seen = [o.result for o in models.map(gpus_of, range(8))]
    finally:
        all_nodes.remove_node(node)
    assert {result and len(result[0]) for result in seen} == {1}
    assert all(result and [result[1]] == result[0] for result in seen)
    assert {result and result[2] for result in seen} == {"a/model"}


def test_embeddings_of_a_cluster_are_those_of_this_machine(cluster, tmp_path, monkeypatch):
    model = make_tiny_model(tmp_path / "model")
    card = ModelCard("tiny", str(model), 64, "q: ", "d: ")
    texts = [f"page {number} of the valve" + " and pump" * number for number in range(9)]
    here = LocalEncoder(card, "fp32").encode(texts, "query")
    monkeypatch.setattr("embed_assets.models.spread.PART", 2)
    there = list(encode_on_ray(card, "fp32", texts, "query"))
    places = [place for some, _ in there for place in some]
    assert sorted(places) == list(range(9))
    assert np.allclose(here[places], np.concatenate([matrix for _, matrix in there]), atol=1e-5)


def test_hard_negatives_of_a_cluster_are_those_of_this_machine(cluster, monkeypatch):
    chosen = np.random.default_rng(0)
    questions, chunks = (chosen.standard_normal((count, 8), np.float32) for count in (20, 90))
    ids = [f"chunk {number}" for number in range(90)]
    related = [{ids[number], ids[number + 1]} for number in range(20)]
    given = (questions, chunks, ids, ids[:20], related, 4)
    here = mine_negatives(*given)
    monkeypatch.setattr("embed_assets.training.negatives.CHUNKS", 16)
    assert mine_negatives(*given, search_on_ray(0)) == here
    nothing = np.zeros((2, 0), int)
    broken = Part(questions[:, :7], np.ones(20), chunks, nothing, count=4, start=0)
    with pytest.raises(ProjectError, match="can't be mined on the Ray cluster: ValueError"):
        list(search_on_ray(0)([broken, broken]))


@pytest.mark.parametrize(
    ("nodes", "places"),
    [
        ([{"CPU": 16.0, "GPU": 4.0}, {"CPU": 64.0}, {"CPU": 8.0, "GPU": 1.0}], (5, 0, 1)),
        ([{}, {"CPU": 16.0}, {"CPU": 6.0}], (5, 4, 0)),
        ([{"CPU": 64.0}, {"CPU": 1.0}], (16, 4, 0)),
        ([{"CPU": 3.0}, {"CPU": 2.0}], (1, 3, 0)),
        ([{"CPU": 1.0}], (1, 1, 0)),
    ],
)
def test_models_find_room_on_nodes_of_any_size(monkeypatch, nodes, places):
    ray = pytest.importorskip("ray", reason="ray isn't installed")
    gone = {"Alive": False, "Resources": {"CPU": 1.0, "GPU": 8.0}}
    there = [{"Alive": True, "Resources": resources} for resources in nodes]
    monkeypatch.setattr(ray, "nodes", lambda: [gone, *there])
    assert places_of_models() == places


def begin_and_wait(item: tuple[int, Path]) -> str:
    """The node that it ran on, once the file is there that lets it end.

    Leaves a file that tells which item began in which process on which node.
    """
    import ray

    number, go_on = item
    node = ray.get_runtime_context().get_node_id()
    (go_on.parent / f"{number}-{os.getpid()}-{node}").touch()
    while not go_on.exists():
        time.sleep(0.02)
    return node


def test_what_a_lost_node_had_in_hand_is_done_by_another(cluster, tmp_path):
    all_nodes, [lost, _] = cluster
    folder = tmp_path / "begun"
    folder.mkdir()
    items = [(number, folder / "go on") for number in range(8)]

    def begun() -> list[tuple[int, int, str]]:
        names = (file.name.split("-") for file in folder.glob("*-*"))
        return [(int(number), int(process), node) for number, process, node in names]

    def lose_node(in_hand: Sequence[tuple[Any, int]]) -> None:
        on_it = [process for _, process, node in begun() if node == lost.node_id]
        if len(begun()) == 2 and lost in all_nodes.worker_nodes:
            all_nodes.remove_node(lost, allow_graceful=False)
            for process in on_it:  # with the machine its processes are gone too
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            (folder / "go on").touch()

    with pool().start(len(items)) as workers:
        outcomes = list(workers.work_off(begin_and_wait, deque(items), watch=lose_node))
        assert sorted(o.item for o in outcomes) == items
        assert {o.failure for o in outcomes} == {None}
        assert lost.node_id not in {o.result for o in outcomes}
        times = Counter(number for number, _, _ in begun())
        assert sorted(times.values()) == [1] * 7 + [2]
        *done, died = workers.map(do, [*[("double", n) for n in range(20)], ("die", 1)])
        assert [o.result for o in done] == [2 * number for number in range(20)]
        assert died.failure is not None
        assert died.failure.cause is Cause.PROCESS_ENDED, "its node is there"


def test_an_item_of_an_actor_that_was_out_of_reach_is_begun_again(cluster, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray isn't installed")
    get, lost = ray.get, []

    def lose_first(asked: Any, **options: Any) -> Any:
        result = get(asked, **options)
        if result == (2 * 17, None) and not lost:
            lost.append(result)
            raise ray.exceptions.ActorUnavailableError("out of reach for a moment", None)
        return result

    monkeypatch.setattr(ray, "get", lose_first)
    with pool().start(1) as workers:
        [outcome] = workers.map(do, [("double", 17)])
    assert (outcome.result, outcome.failure) == (34, None)
    assert lost


class Unlucky:
    """In place of an actor: it comes too early or too late for its node."""

    def __init__(self, share: Share, look: Any) -> None:
        pass

    def has_begun(self) -> bool:
        return True

    def carry_out(self, function: Any, item: Any, limit: float, note: Any) -> Any:
        raise NodeLostError

    def end(self) -> None:
        pass


class Stillborn(Unlucky):
    def has_begun(self) -> bool:
        raise NodeLostError


def test_an_item_under_which_node_after_node_is_lost_is_taken_for_the_reason(monkeypatch):
    monkeypatch.setattr("embed_assets.resources.ray_workers.WorkerActor", Unlucky)
    workers = RayWorkers(2, 60.0, Share())
    outcomes = list(workers.map(do, [("double", 1), ("double", 2)]))
    workers.end()
    assert [o.failure for o in outcomes] == [
        Failure(Cause.PROCESS_ENDED, "3 nodes were lost under it")
    ] * 2


def test_where_no_actor_lives_until_it_begins_the_items_do_not_wait_for_ever(monkeypatch):
    monkeypatch.setattr("embed_assets.resources.ray_workers.WorkerActor", Stillborn)
    workers = RayWorkers(2, 60.0, Share())
    with pytest.raises(ProjectError, match="end before they have begun"):
        list(workers.map(do, [("double", 1), ("double", 2)]))
    workers.end()


def test_a_cluster_out_of_reach_is_one_line_that_says_what_to_do(monkeypatch, free_port):
    ray = pytest.importorskip("ray", reason="ray isn't installed")
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ProjectError) as error, pool().start(1):
        pass
    assert str(error.value).startswith(f"RAY_ADDRESS: no Ray cluster answers at '{address}' (")
    assert "unset RAY_ADDRESS" in str(error.value)


def test_where_ray_is_not_installed_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with (
        pytest.raises(ProjectError, match=r"^EMBED_ASSETS_ENGINE: .*'embed_assets\[ray\]'"),
        pool().start(1),
    ):
        pass
