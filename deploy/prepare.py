"""Make what the processes of a deployment expect. Run again, it changes only what differs.

The buckets; Dagster's instance in the home, with its tables, brought to the installed release; and
the limits of the pools. Run by one process before the others start: two that make Dagster's tables
at once would break each other's.

POOLS: limits by pool, `parsing=1,llm=2,training=1`. BUCKETS: their names, separated by commas.
"""

import os
from pathlib import Path

import boto3
import dagster as dg

from embed_assets.command.instance import ON_RAY, RAY_JOBS

HERE = Path(__file__).parent


def make_bucket(name: str) -> None:
    """Make a bucket, if there is none."""
    storage = boto3.client("s3")
    try:
        storage.head_bucket(Bucket=name)
    except storage.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "404":
            raise
        storage.create_bucket(Bucket=name)


def set_limits(instance: dg.DagsterInstance, said: str) -> None:
    """Set how many assets of a pool are made at once."""
    for pool in filter(None, said.split(",")):
        name, _, limit = pool.partition("=")
        instance.event_log_storage.set_concurrency_slots(name.strip(), int(limit))


def main() -> None:
    """Make everything."""
    for name in filter(None, os.environ.get("BUCKETS", "").split(",")):
        make_bucket(name)
    home = Path(os.environ["DAGSTER_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    said = (HERE / "dagster.yaml").read_text(encoding="utf-8")
    if os.environ.get(RAY_JOBS):
        said += ON_RAY
    (home / "dagster.yaml").write_text(said, encoding="utf-8")
    with dg.DagsterInstance.get() as instance:
        instance.upgrade()
        set_limits(instance, os.environ.get("POOLS", ""))


if __name__ == "__main__":
    main()
