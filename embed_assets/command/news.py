"""What the sensors and runs of a home do, as lines for a person who watches a terminal."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus  # Dagster doesn't export it

from embed_assets.automation.sensors import REASON, SENSORS
from embed_assets.graph import GRAPH

SAID = {
    dg.DagsterRunStatus.STARTED: "started",
    dg.DagsterRunStatus.SUCCESS: "done",
    dg.DagsterRunStatus.FAILURE: "failed: the UI has its log (embed-assets ui)",
    dg.DagsterRunStatus.CANCELED: "ended by a person",
}


class News:
    """What is new since it was last asked."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._said: dict[str, str] = {}
        self._since = datetime.now(UTC)

    def lines(self) -> Iterator[str]:
        """A line for each sensor that says something else than before, and each run's news."""
        for about, said in (*self._of_sensors(), *self._of_runs()):
            if self._said.get(about) != said:
                self._said[about] = said
                yield f"{datetime.now():%H:%M:%S}  {about}: {said}"

    def _of_sensors(self) -> Iterator[tuple[str, str]]:
        for state in self._instance.all_instigator_state():
            if state.instigator_name not in SENSORS:
                continue
            ticks = self._instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
            for tick in ticks:
                if tick.timestamp < self._since.timestamp():
                    continue
                if tick.status is TickStatus.SKIPPED and tick.skip_reason:
                    yield state.instigator_name, tick.skip_reason
                elif tick.status is TickStatus.FAILURE and tick.error:
                    yield state.instigator_name, tick.error.message.strip()

    def _of_runs(self) -> Iterator[tuple[str, str]]:
        since = dg.RunsFilter(updated_after=self._since)
        for run in reversed(self._instance.get_runs(since, limit=100)):
            if run.status not in SAID:
                continue
            chosen = {key.path[-1] for key in run.asset_selection or ()}
            assets = ", ".join(name for name in GRAPH if name in chosen) or run.job_name
            why = f" ({run.tags[REASON]})" if REASON in run.tags else ""
            yield f"run {run.run_id[:8]}, {assets}{why}", SAID[run.status]
