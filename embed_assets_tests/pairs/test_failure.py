"""Where pairs can't be made their checks say so: Dagster leaves the checks out."""

from pathlib import Path

import dagster as dg

from embed_assets.definitions import build_definitions
from embed_assets.pairs.assets import CHECKS
from embed_assets.settings import Settings


def test_every_check_gives_a_result_though_there_are_no_pairs(tmp_path: Path) -> None:
    settings = Settings(pdfs=tmp_path, home=tmp_path / "home")
    definitions = build_definitions(settings, {"io_manager": dg.mem_io_manager})
    with dg.instance_for_test() as instance:
        result = definitions.resolve_job_def("train").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey("training_pairs")],
            raise_on_error=False,
        )
        assert not result.success
        told = instance.all_logs(result.run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = {}
    for entry in told:
        check = entry.get_dagster_event().asset_check_evaluation_data
        found[check.check_name] = check
    assert set(found) == set(CHECKS)
    for check in found.values():
        assert not check.passed
        assert "training_pairs could not be made: Nothing is ingested yet" in (
            check.description or ""
        )
