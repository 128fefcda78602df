"""An actor that carries items out, as seen from outside: at work, lost, or on a lost node."""

import functools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast

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


class WorkerActor:
    """One actor, from before it begins until it is ended."""

    def __init__(self, share: Share) -> None:
        """Asks for it."""
        kind = _kind().options(num_cpus=share.cpus, num_gpus=share.gpus)
        self._actor = kind.remote(share.memory_limit_bytes, share.told)
        self._node_id = ""
        self._asked = self._actor.node_id.remote()

    def has_begun(self) -> bool:
        """Whether it is there, asked for SECONDS_BETWEEN_LOOKS at most: its node may have no room.

        ActorLostError if it was lost before. ProjectError where no actor can begin.
        """
        import ray
        from ray.exceptions import RayActorError, RayError

        if not _is_there(self._asked, SECONDS_BETWEEN_LOOKS):
            return False
        try:
            self._node_id = cast(str, ray.get(self._asked))
        except RayActorError as error:
            if error.actor_init_failed:
                raise _cant_begin(error) from error
            raise ActorLostError from error
        except RayError as error:
            raise _cant_begin(error) from error
        return True

    def carry_out(
        self,
        function: Callable[[Item], Result],
        item: Item,
        limit: float,
        look: Callable[[int], None],
    ) -> Any:
        """What `call` gives for an item. limit: of seconds.

        look: called now and then with what the item has reported; what it raises ends the wait.
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
        asked, done = None, 0
        while not _is_there(made, min(SECONDS_BETWEEN_LOOKS, since + limit - time.monotonic())):
            if time.monotonic() - since >= limit:
                raise TimeoutError if is_alive(self._node_id) else NodeLostError
            asked = asked or self._actor.done.options(concurrency_group=LOOKS).remote()
            if _is_there(asked, 0):
                with suppress(RayError):  # the item's result says it too
                    done = cast(int, ray.get(asked))
                asked = None
            look(done)
        try:
            return ray.get(made)
        except RayTaskError as error:
            raise ItemError from error.cause
        except ObjectLostError as error:  # the result was on a node that is gone
            raise NodeLostError from error
        except (RayActorError, OutOfMemoryError) as error:
            in_reach = not isinstance(error, ActorUnavailableError)
            raise self._what_is_lost(in_reach, lambda: look(done)) from error

    def end(self) -> None:
        """End its process at once, if it is there."""
        import ray

        ray.kill(self._actor)

    def _what_is_lost(
        self, is_gone: bool, look: Callable[[], None]
    ) -> ActorLostError | NodeLostError:
        """Waits until it is known. is_gone: whether the actor is known to be gone.

        An actor that is there again has lost its item all the same, for no fault of the item.
        """
        since = time.monotonic()
        while time.monotonic() - since < (SECONDS_BEHIND if is_gone else SECONDS_OUT_OF_REACH):
            look()
            if not is_alive(self._node_id):
                return NodeLostError()
            if not is_gone and self._is_gone():
                is_gone, since = True, time.monotonic()
            time.sleep(SECONDS_BETWEEN_LOOKS)
        return ActorLostError() if is_gone else NodeLostError()

    def _is_gone(self) -> bool:
        """Whether the cluster knows by now that it has ended."""
        import ray
        from ray.exceptions import ActorUnavailableError, RayActorError

        asked = self._actor.node_id.remote()
        try:
            if _is_there(asked, SECONDS_BETWEEN_LOOKS):
                ray.get(asked)
        except ActorUnavailableError:
            return False
        except RayActorError:
            return True
        return False


@functools.cache
def _kind() -> Any:
    """RayWorker as actors. Ray's own restarts and retries are off."""
    import ray

    as_actors: Any = ray.remote(  # pyright: ignore[reportCallIssue]
        max_restarts=0, max_task_retries=0, concurrency_groups={LOOKS: 1}
    )
    return as_actors(RayWorker)


def _is_there(reference: Any, seconds: float) -> bool:
    import ray

    there, _ = ray.wait([reference], timeout=max(0.0, seconds))
    return bool(there)


def _cant_begin(error: Exception) -> ProjectError:
    todo = "Install embed_assets[ray], in the same version, on every node."
    return ProjectError(one_line(f"A worker can't begin on the Ray cluster. {todo} {error}"))
