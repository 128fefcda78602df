"""An actor, as seen from outside: not there yet, at work, lost, or on a lost node."""

import functools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar

from embed_assets.errors import ProjectError, one_line
from embed_assets.resources.ray_cluster import is_alive
from embed_assets.resources.ray_worker import LOOKS, RayWorker
from embed_assets.resources.workers import SECONDS_BETWEEN_LOOKS, Item, Result

SECONDS_BEHIND = 2.0
"""By which the news of a node may come after the news of an actor on it."""
SECONDS_OUT_OF_REACH = 90.0
"""Within which a cluster finds out that a node is gone of which nothing is heard."""


class ActorLostError(Exception):
    """The actor's process has ended, and its node is there."""


class NodeLostError(Exception):
    """The actor's node is gone, or can't be reached any more."""


class ItemError(Exception):
    """The item or its result can't be sent, or not be read there: its cause says why."""


class NoLongerWantedError(Exception):
    """Whoever waits for an actor is to wait no more."""


class Actor:
    """One actor, from before it begins until it is ended.

    kind: the class that it is of; its method `node` gives what `this_node` does there. groups: of
    methods of this class that answer while another is at work.
    """

    kind: ClassVar[type]
    groups: ClassVar[tuple[str, ...]] = ()

    def __init__(self, cpus: int, gpus: int, look: Callable[[], None], *given: Any) -> None:
        """Asks for it. look: called now and then while it is waited for; what it raises ends the
        wait. given: to its class.
        """
        actors = _as_actors(self.kind, self.groups)
        self._actor = actors.options(num_cpus=cpus, num_gpus=gpus).remote(*given)
        self._look = look
        self._node_id = self.address = ""
        self._asked = self._actor.node.remote()

    def has_begun(self) -> bool:
        """Whether it is there, asked for a moment: no node may have room.

        NodeLostError if it was lost before: on which node isn't known. ProjectError where no actor
        can begin.
        """
        import ray
        from ray.exceptions import RayActorError, RayError

        if not self._is_there(self._asked):
            return False
        try:
            self._node_id, self.address = ray.get(self._asked)
        except RayError as error:
            if isinstance(error, RayActorError) and not error.actor_init_failed:
                raise NodeLostError from error
            todo = "Install embed_assets[ray], in the same version, on every node."
            said = f"Nothing can begin on the Ray cluster. {todo} {error}"
            raise ProjectError(one_line(said)) from error
        return True

    def end(self) -> None:
        """End its process at once, if it is there."""
        import ray

        ray.kill(self._actor)

    def _ask(self, method: Any, *given: Any) -> Any:
        """What a method gives, asked again while the node is out of reach.

        ActorLostError or NodeLostError where it can't be known. ProjectError where it raises.
        """
        import ray
        from ray.exceptions import (
            ActorUnavailableError,
            OutOfMemoryError,
            RayActorError,
            RayTaskError,
        )

        until = time.monotonic() + SECONDS_OUT_OF_REACH
        while time.monotonic() < until:
            asked = method.remote(*given)
            while not self._is_there(asked) and time.monotonic() < until:
                pass
            try:
                return ray.get(asked, timeout=0)
            except RayTaskError as error:
                if isinstance(error.cause, ProjectError):
                    raise error.cause from error
                said = f"A node of the Ray cluster can't start it: {error.cause}"
                raise ProjectError(one_line(said)) from error
            except (ActorUnavailableError, TimeoutError):
                if not is_alive(self._node_id):
                    break
                self._pause()
            except (RayActorError, OutOfMemoryError) as error:
                raise self._what_is_lost() from error
        raise NodeLostError

    def _what_is_lost(self) -> ActorLostError | NodeLostError:
        """Waits until it is known: the news of a node may come after those of an actor on it."""
        until = time.monotonic() + SECONDS_BEHIND
        while time.monotonic() < until:
            if not is_alive(self._node_id):
                return NodeLostError()
            self._pause()
        return ActorLostError()

    def _is_there(self, asked: Any, seconds: float = SECONDS_BETWEEN_LOOKS) -> bool:
        import ray

        there, _ = ray.wait([asked], timeout=max(0.0, seconds))
        self._look()
        return bool(there)

    def _pause(self) -> None:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        self._look()


@dataclass(frozen=True)
class Share:
    """What an actor gets: of its node, and to know.

    memory_limit_bytes: as RayWorker has it. told: variables of its environment. They may hold
    secrets: Ray shows those of a runtime environment on its pages, and arguments nowhere.
    """

    memory_limit_bytes: int | None = None
    cpus: int = 1
    gpus: int = 0
    told: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """For a person."""
        return "GPU" if self.gpus else "CPU" if self.cpus == 1 else f"{self.cpus} CPUs"


class WorkerActor(Actor):
    """One that carries items out."""

    kind = RayWorker
    groups = (LOOKS,)

    def __init__(self, share: Share, look: Callable[[], None]) -> None:
        """Asks for it. look: as Actor has it."""
        super().__init__(share.cpus, share.gpus, look, share.memory_limit_bytes, share.told)

    def carry_out(
        self,
        function: Callable[[Item], Result],
        item: Item,
        limit: float,
        note: Callable[[int], None],
    ) -> Any:
        """What `call` gives for an item. limit: of seconds. note: is told what the item reports.

        TimeoutError, ActorLostError or NodeLostError where there is no result: then there is no
        actor any more. ItemError: it is fit for another item.
        """
        import ray
        from ray.exceptions import (
            ActorUnavailableError,
            ObjectLostError,
            OutOfMemoryError,
            RayActorError,
            RayError,
            RayTaskError,
        )

        since = time.monotonic()
        try:
            made = self._actor.carry_out.remote(function, item)
        except (TypeError, AttributeError, ValueError) as error:  # can't be pickled
            raise ItemError from error
        asked = None
        while not self._is_there(
            made, min(SECONDS_BETWEEN_LOOKS, since + limit - time.monotonic())
        ):
            if time.monotonic() - since >= limit:
                raise TimeoutError if is_alive(self._node_id) else NodeLostError
            asked = asked or self._actor.done.options(concurrency_group=LOOKS).remote()
            if self._is_there(asked, 0):
                with suppress(RayError):  # the item's result says it too
                    note(ray.get(asked))
                asked = None
        try:
            return ray.get(made)
        except RayTaskError as error:
            raise ItemError from error.cause
        except ObjectLostError as error:  # the result was on a node that is gone
            raise NodeLostError from error
        except ActorUnavailableError as error:
            self._ask(self._actor.node)
            # It is there again, and has lost its item all the same, for no fault of the item.
            raise NodeLostError from error
        except (RayActorError, OutOfMemoryError) as error:
            raise self._what_is_lost() from error


@functools.cache
def _as_actors(kind: type, groups: tuple[str, ...]) -> Any:
    """A class as actors. Ray's own restarts and retries are off."""
    import ray

    as_actors: Any = ray.remote(  # pyright: ignore[reportCallIssue]
        max_restarts=0, max_task_retries=0, concurrency_groups=dict.fromkeys(groups, 1)
    )
    return as_actors(kind)
