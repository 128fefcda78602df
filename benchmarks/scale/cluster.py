"""Postgres, a bucket and Ray on the hosts."""

import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hosts import HEAD, NETWORK, WORKERS, Host

POSTGRES, BUCKET, RAY = 5499, 5498, 6399
INSIDE = Path(__file__).with_name("inside.py")


class Cluster:
    """What the hosts work with, all of it on the head."""

    def __init__(self, scratch: Path, hosts: dict[str, Host]) -> None:
        self.scratch, self.hosts, self.head = scratch, hosts, hosts[HEAD]
        self.catalogs = 0
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://{self.head.address}:{BUCKET}",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
            "RAY_ADDRESS": f"{self.head.address}:{RAY}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
        }

    def start(self) -> None:
        """Start everything but Ray's workers."""
        data = self.scratch / "postgres"
        data.mkdir()
        shutil.chown(data, "postgres")
        programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        by = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        subprocess.run([*by, programs / "initdb", "-D", data, "-A", "trust"], check=True, stdout=-3)
        with (data / "pg_hba.conf").open("a", encoding="utf-8") as rules:
            rules.write(f"host all all {NETWORK}.0/24 trust\n")
        options = ["-p", str(POSTGRES), "-k", "", "-c", f"listen_addresses={self.head.address}"]
        options += ["-c", "max_connections=300"]
        self.head.start([*by, str(programs / "postgres"), "-D", str(data), *options], self.log)
        moto = [sys.executable, "-m", "moto.server", "-H", self.head.address, "-p", str(BUCKET)]
        self.head.start(moto, self.log)
        head = ("--head", f"--port={RAY}", "--num-cpus=0", "--include-dashboard=false")
        self.ray(self.head, *head, f"--temp-dir={self.scratch}/ray")
        make_bucket = "import boto3; boto3.client('s3').create_bucket(Bucket='lake')"
        once_there(lambda: self.head.run([sys.executable, "-c", make_bucket], **self.environment))

    @property
    def log(self) -> Path:
        return self.scratch / "servers.log"

    def ray(self, host: Host, *options: str) -> None:
        """Start a node of Ray on a host."""
        start = ["ray", "start", "--block", f"--node-ip-address={host.address}"]
        host.start([*start, *options], self.log, **self.environment)

    def join(self, host: Host, cpus: int) -> None:
        """Have a host work for the cluster."""
        self.ray(host, f"--address={self.head.address}:{RAY}", f"--num-cpus={cpus}")

    def sql(self, statement: str, database: str = "postgres") -> None:
        """Run a statement in Postgres."""
        code = (
            "import psycopg2, sys; s = psycopg2.connect(sys.argv[1]); s.autocommit = True; "
            "s.cursor().execute(sys.argv[2])"
        )
        self.head.run([sys.executable, "-c", code, self.catalog(database), statement])

    def catalog(self, database: str) -> str:
        return f"host={self.head.address} port={POSTGRES} user=postgres dbname={database}"

    def new_lake(self, data: str = "") -> str:
        """Address of a lake in which nothing is. data: where its files are; the bucket without."""
        self.catalogs += 1
        name = f"lake{self.catalogs}"
        once_there(lambda: self.sql(f"CREATE DATABASE {name}"))
        return f"ducklake:postgres:{self.catalog(name)}?data={data or f's3://lake/{name}'}"

    def wait_for_cpus(self, cpus: int) -> None:
        """Until the workers have joined."""
        code = (
            "import ray, time; ray.init(address='auto', log_to_driver=False)\n"
            "for _ in range(240):\n"
            f"    if ray.cluster_resources().get('CPU', 0) >= {cpus}: break\n"
            "    time.sleep(0.5)\n"
            "else: raise SystemExit('the workers did not join')"
        )
        once_there(lambda: self.head.run([sys.executable, "-c", code], **self.environment))

    def inside(self, *arguments: str, **environment: str) -> str:
        """What `inside.py` prints on the head."""
        command = [sys.executable, str(INSIDE), *arguments]
        return self.head.run(command, **{**self.environment, **environment})

    @contextmanager
    def at_work(self, cpus: int = 1, names: tuple[str, ...] = WORKERS) -> Iterator[None]:
        """In the block these hosts work for the cluster, each with so many CPUs."""
        for number, name in enumerate(names, start=1):  # two that start at once time out here
            self.join(self.hosts[name], cpus)
            self.wait_for_cpus(number * cpus)
        try:
            yield
        finally:
            for name in names:
                self.hosts[name].kill()


def once_there(use: Callable[[], object], limit: float = 120.0) -> None:
    """Try until it can be done."""
    deadline = time.monotonic() + limit
    while True:
        try:
            use()
            return
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
