"""Hosts made of network namespaces, each with an address of its own. Needs Linux, root and `ip`."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

NETWORK = "10.77.0"
HEAD, WORKERS = "scale-head", ("scale-one", "scale-two")


@dataclass
class Host:
    """A network namespace, and what runs in it."""

    name: str
    address: str
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: list[str], log: Path, **environment: str) -> subprocess.Popen[bytes]:
        """Start something there that goes on."""
        with log.open("ab") as out:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self.name, *command],
                stdout=out,
                stderr=out,
                env={**os.environ, **environment},
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, command: list[str], **environment: str) -> str:
        """What a command prints there. RuntimeError where it fails."""
        done = subprocess.run(
            ["ip", "netns", "exec", self.name, *command],
            capture_output=True,
            text=True,
            encoding="utf-8",
            env={**os.environ, **environment},
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stdout}{done.stderr[-3000:]}")
        return done.stdout

    def kill(self) -> None:
        """End all that runs there at once, as a power cut does."""
        pids = subprocess.run(
            ["ip", "netns", "pids", self.name], capture_output=True, text=True, encoding="utf-8"
        ).stdout.split()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        for process in self.processes:
            process.wait()
        self.processes.clear()


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@contextmanager
def hosts() -> Iterator[dict[str, Host]]:
    """The head and the workers, on a bridge of their own; gone at the end, with all in them."""
    made = {
        name: Host(name, f"{NETWORK}.{number}")
        for number, name in enumerate((HEAD, *WORKERS), start=1)
    }
    for name in made:
        subprocess.run(["ip", "netns", "delete", name], stderr=subprocess.DEVNULL)
        ip("netns", "add", name)
        ip("-n", name, "link", "set", "lo", "up")
    try:
        ip("-n", HEAD, "link", "add", "bridge", "type", "bridge")
        ip("-n", HEAD, "address", "add", f"{NETWORK}.1/24", "dev", "bridge")
        ip("-n", HEAD, "link", "set", "bridge", "up")
        for number, name in enumerate(WORKERS, start=2):
            port = f"port{number}"
            ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", port, "netns", HEAD)
            ip("-n", HEAD, "link", "set", port, "master", "bridge", "up")
            ip("-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield made
    finally:
        for host in made.values():
            host.kill()
            ip("netns", "delete", host.name)
