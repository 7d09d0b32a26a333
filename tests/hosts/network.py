"""Hosts, as network namespaces on one machine: a bridge in one of its own, a veth to each host.

Nothing is made in the machine's own network, and nothing is reached through it. A namespace that
is made is removed again, whatever happens; one whose last process is gone leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PREFIX = "10.77.0."


def why_not() -> str | None:
    """Why there can be no hosts here; None where there can."""
    if shutil.which("ip") is None:
        return "no `ip` (iproute2) to make network namespaces with"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"ustry{os.getpid()}"
    made = _try("netns", "add", name)
    linked = made and _try(
        "-n", name, "link", "add", "name", "a", "type", "veth", "peer", "name", "b"
    )
    bridged = linked and _try("-n", name, "link", "add", "name", "c", "type", "bridge")
    if made:
        _try("netns", "del", name)
    return None if bridged else "network namespaces, veth or bridges are not permitted here"


class Network:
    """The hosts, numbered from 1, and what may befall the links between them."""

    def __init__(self, hosts: int) -> None:
        self._switch = f"us{os.getpid()}sw"
        self.names = [f"us{os.getpid()}h{number}" for number in range(1, hosts + 1)]

    def make(self) -> None:
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "name", "br", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "dev", "br", "up")
        for number, name in enumerate(self.names, start=1):
            port = f"p{number}"
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "dev", "lo", "up")
            _ip(
                "-n", self._switch, "link", "add", "name", port, "type", "veth",
                "peer", "name", "eth0", "netns", name,
            )  # fmt: skip
            _ip("-n", self._switch, "link", "set", "dev", port, "master", "br", "up")
            _ip("-n", name, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "dev", "eth0", "up")

    def remove(self) -> None:
        for name in (*self.names, self._switch):
            _try("netns", "del", name)

    def address(self, number: int) -> str:
        return f"{PREFIX}{number}"

    def inside(self, number: int, *command: str) -> list[str]:
        """The command, to be run on a host."""
        return ["ip", "netns", "exec", self.names[number - 1], *command]

    def kill(self, number: int) -> None:
        """End everything that runs on a host, and what that starts meanwhile."""
        while pids := self.pids(number):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def pids(self, number: int) -> list[int]:
        """Everything that runs on a host."""
        return [int(pid) for pid in _ip("netns", "pids", self.names[number - 1]).split()]

    def cut(self, number: int) -> None:
        """Take a host off the network; its processes go on."""
        _ip("-n", self._switch, "link", "set", "dev", f"p{number}", "down")

    def mend(self, number: int) -> None:
        _ip("-n", self._switch, "link", "set", "dev", f"p{number}", "up")

    def slow(self, number: int, rate: str) -> None:
        """Let no more than `rate` (as tc has it: 128kbit) through to and from a host: what is too
        much waits for a second and is then dropped. Bandwidth and not only delay, as more kernels
        have `tbf` than `netem`."""
        limit = ("root", "tbf", "rate", rate, "burst", "4kb", "latency", "1s")
        for where, device in ((self._switch, f"p{number}"), (self.names[number - 1], "eth0")):
            command = ("tc", "-n", where, "qdisc", "add", "dev", device, *limit)
            subprocess.run(command, capture_output=True, check=True)

    def listening(self, number: int) -> set[str]:
        """The addresses on which anything listens on a host."""
        lines = subprocess.run(
            self.inside(number, "ss", "-H", "-l", "-n", "-t"),
            capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
        return {line.split()[3].rpartition(":")[0] for line in lines}


@contextmanager
def network(hosts: int) -> Iterator[Network]:
    """So many hosts. What still runs on one at the end is killed: it was started there."""
    made = Network(hosts)
    try:
        made.make()
        yield made
    finally:
        for number in range(1, hosts + 1):
            with suppress(subprocess.CalledProcessError):  # it may not have been made
                made.kill(number)
        made.remove()


def left_over() -> list[str]:
    """Our namespaces that are still there."""
    listed = json.loads(_ip("-j", "netns", "list") or "[]")
    return [one["name"] for one in listed if one["name"].startswith(f"us{os.getpid()}")]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _try(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True, check=False).returncode == 0
