"""Workers that are actors of a Ray cluster, on whichever of its nodes there is room.

A thread of this process attends to each actor: it hands it one item at a time, ends it when an item
takes too long, and starts another where one is lost. An actor that ends takes the item down that it
had; a node that is lost takes none: its items are begun again on another. Ray's own retries and
restarts are off, as they know nothing of the difference.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ledger import Cause, Failure
from embed_assets.resources.ray_actor import (
    ActorLostError,
    ItemError,
    NodeLostError,
    NoLongerWantedError,
    Share,
    WorkerActor,
)
from embed_assets.resources.ray_cluster import connect, cpus, places_of_models, travelling
from embed_assets.resources.ray_worker import NO_LIMIT, BytesInStore
from embed_assets.resources.workers import Item, Result, Workers

MOST_LOST_NODES = 3
"""Nodes that may be lost under an item before it is taken for the reason."""
MOST_FAILED_STARTS = 3
"""Actors that may be lost in a row before they have begun."""
SECONDS_UNTIL_SAID = 30.0
"""Of waiting for room, until a person is told."""
SECONDS_TO_END = 10.0
TRAVELS_TO_MODELS = ("HF_", "EMBED_ASSETS_TRUSTED_MODELS")
"""Variables that decide whether a node can load a model."""

_log = logging.getLogger(__name__)


@contextmanager
def ray_workers(
    processes: int, most_items: int, timeout: float, memory_limit_bytes: int | None
) -> "Iterator[RayWorkers]":
    """An actor for each process, at work until the block ends; 0: for each CPU of the cluster.

    timeout: seconds per item. memory_limit_bytes: as RayWorker has it. ProjectError where there is
    no cluster, or where actors can't be started there.
    """
    connect(processes)
    with _at_work(processes or cpus(), most_items, timeout, Share(memory_limit_bytes)) as workers:
        yield workers


@contextmanager
def ray_models(most_items: int, timeout: float) -> "Iterator[RayWorkers]":
    """An actor for each model that the cluster has room for, at work until the block ends.

    timeout: seconds per item. ProjectError as `ray_workers` has it.
    """
    connect(0)
    places, each_cpus, each_gpus = places_of_models()
    share = Share(NO_LIMIT, each_cpus, each_gpus, travelling(TRAVELS_TO_MODELS))
    with _at_work(places, most_items, timeout, share) as workers:
        yield workers


@contextmanager
def _at_work(actors: int, most_items: int, timeout: float, share: Share) -> "Iterator[RayWorkers]":
    workers = RayWorkers(min(actors, max(1, most_items)), timeout, share)
    try:
        yield workers
    finally:
        workers.end()


@dataclass(eq=False)
class _Task:
    """An item that is to be carried out. place: of what it reports. lost_nodes: under it so far."""

    function: Callable[[Any], Any]
    item: Any
    place: int
    limit: float
    future: "Future[Any]" = field(default_factory=Future)
    lost_nodes: int = 0


class RayWorkers(Workers):
    """The threads that attend to actors, and the items that wait for one."""

    def __init__(self, actors: int, timeout: float, share: Share) -> None:
        """Starts them. timeout: as `ray_workers` has it. share: each actor's."""
        super().__init__(timeout, [0] * (2 * actors))
        self._share = share
        self._waiting: deque[_Task] = deque()
        self._changed = threading.Condition()
        self._ended = threading.Event()
        self._broken: ProjectError | None = None
        self._one_has_begun = threading.Event()
        self._threads = [
            threading.Thread(target=self._attend, name=f"attends actor {number}", daemon=True)
            for number in range(actors)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def sharing(self, contents: Sequence[bytes]) -> Iterator[list[BytesInStore]]:
        """As Workers has it: in the object stores of the cluster's nodes."""
        import ray
        from ray.exceptions import ObjectStoreFullError, OutOfDiskError

        try:
            references = [ray.put(content) for content in contents]
        except (ObjectStoreFullError, OutOfDiskError) as error:
            said = one_line(f"Ray's object store has no room for the PDFs: {error}")
            raise ProjectError(said) from error
        yield [BytesInStore(reference) for reference in references]

    def end(self) -> None:
        """End all actors, whatever they are at."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        until = time.monotonic() + SECONDS_TO_END
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _schedule(
        self, function: Callable[[Item], Result], item: Item, place: int, limit: float
    ) -> "Future[Any]":
        task = _Task(function, item, place, limit)
        with self._changed:
            self._waiting.append(task)
            self._changed.notify()
        if self._broken:
            self._give_up(self._broken)
        return task.future

    def _explain(self, error: BaseException, limit: float) -> Failure:
        if isinstance(error, ProjectError):
            raise error
        if isinstance(error, ActorLostError):
            return Failure(Cause.PROCESS_ENDED, "its process ended")
        if isinstance(error, NodeLostError):
            return Failure(Cause.PROCESS_ENDED, f"{MOST_LOST_NODES} nodes were lost under it")
        return super()._explain(error, limit)

    def _attend(self) -> None:
        """Have one actor after another carry out items. Runs in a thread for each of them."""
        failed_starts = 0
        try:
            while failed_starts < MOST_FAILED_STARTS:
                actor = WorkerActor(self._share, self._raise_if_ended)
                try:
                    self._wait_for(actor)
                    failed_starts = 0
                    self._serve_with(actor)
                except NodeLostError:
                    failed_starts += 1
                finally:
                    actor.end()
            self._give_up(ProjectError("Workers on the Ray cluster end before they have begun."))
        except NoLongerWantedError:
            return
        except ProjectError as error:
            self._give_up(error)
        except Exception as error:
            said = one_line(
                f"The Ray cluster can't be worked with: {type(error).__name__}: {error}"
            )
            self._give_up(ProjectError(said))

    def _wait_for(self, actor: WorkerActor) -> None:
        """Wait until it has begun. NodeLostError as Actor has it."""
        since, told = time.monotonic(), False
        while not actor.has_begun():
            waited = time.monotonic() - since > SECONDS_UNTIL_SAID
            if waited and not told and not self._one_has_begun.is_set():
                told = True
                _log.warning(f"The Ray cluster has no free {self._share} so far: the work waits.")
        self._one_has_begun.set()

    def _serve_with(self, actor: WorkerActor) -> None:
        """Have it carry out items until it is lost."""
        while True:
            task = self._next()
            note = partial(self._done.__setitem__, task.place)
            try:
                task.future.set_result(actor.carry_out(task.function, task.item, task.limit, note))
            except ItemError as error:
                task.future.set_exception(error.__cause__ or error)
            except NodeLostError as error:
                self._take_back(task, error)
                return
            except (TimeoutError, ActorLostError) as error:
                task.future.set_exception(error)
                return
            except BaseException:
                self._put_first(task)  # it ends as those that wait do
                raise

    def _take_back(self, task: _Task, error: NodeLostError) -> None:
        """Have it begun again on another node, unless it has lost too many."""
        task.lost_nodes += 1
        if task.lost_nodes >= MOST_LOST_NODES:
            task.future.set_exception(error)
            return
        _log.warning("A node of the Ray cluster is lost: what it had in hand is begun again.")
        self._put_first(task)

    def _put_first(self, task: _Task) -> None:
        with self._changed:
            self._waiting.appendleft(task)
            self._changed.notify()

    def _next(self) -> _Task:
        """The item that waits longest, once there is one."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ended.is_set())
            self._raise_if_ended()
            return self._waiting.popleft()

    def _raise_if_ended(self) -> None:
        if self._ended.is_set():
            raise NoLongerWantedError

    def _give_up(self, error: ProjectError) -> None:
        """Have all items end with this error that wait now or will."""
        with self._changed:
            self._broken = error
            waiting = list(self._waiting)
            self._waiting.clear()
        for task in waiting:
            task.future.set_exception(error)
