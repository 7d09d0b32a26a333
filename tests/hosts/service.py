"""A service over several hosts: a supervisor on each, and what can be asked of them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from supervisor.calls import Status
from tests.hosts.network import Network, network
from tests.supervisor.live import environment

NODES = ("main", "left", "right")
PORT = 8080
DEADLINE_S = 90.0
NATS_TOKEN, ETCD_PASSWORD = "token-of-the-test", "password-of-the-test"


ASK = """
import json, sys, urllib.request
request = urllib.request.Request(
    sys.argv[1], sys.argv[2].encode(), {"Content-Type": "application/json"}
)
answer = json.load(urllib.request.urlopen(request, timeout=60))
print(answer["choices"][0]["message"]["content"], end="")
"""


class Hosts:
    """`nodes` of the topology are the hosts in order; each has a state directory of its own."""

    def __init__(
        self, net: Network, base: Path, topology: Path, nodes: Sequence[str], sets: Sequence[str]
    ) -> None:
        self.net = net
        self._nodes = nodes
        self._sets = [word for setting in sets for word in ("--set", setting)]
        self._base = base
        self._topology = topology
        self.certificates = base / "certificates"
        self.supervisors: dict[str, subprocess.Popen[bytes]] = {}

    def number(self, node: str) -> int:
        return self._nodes.index(node) + 1

    def environment(self, node: str) -> dict[str, str]:
        return {
            **environment(self._base / node),
            "MAIN_ADDRESS": self.net.address(1),
            "NATS_TOKEN": NATS_TOKEN,
            "ETCD_PASSWORD": ETCD_PASSWORD,
            "CERTIFICATES": str(self.certificates),
        }

    def command_lines(self, node: str) -> list[str]:
        """Of everything that runs on a host."""
        pids = self.net.pids(self.number(node))
        found = []
        for pid in pids:
            with suppress(OSError):  # it has just ended
                found.append(Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "))
        return found

    def make_certificates(self) -> None:
        """As an operator does, once for all nodes."""
        made = self.run(self._nodes[0], "certificates", str(self._topology))
        assert made.returncode == 0, made.stderr

    def start(self, node: str, *more: str) -> None:
        """Start a host's supervisor."""
        said = (str(self._topology), "--node", node, *self._sets, *more)
        command = (sys.executable, "-m", "supervisor", "up", *said)
        with (self._base / f"{node}.log").open("ab") as log:
            self.supervisors[node] = subprocess.Popen(
                self.net.inside(self.number(node), *command),
                env=self.environment(node),
                stdout=log,
                stderr=log,
            )

    def run(self, node: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`supervise` on a host, to its end."""
        command = (sys.executable, "-m", "supervisor", *arguments)
        return subprocess.run(
            self.net.inside(self.number(node), *command),
            env=self.environment(node),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )

    def status(self, node: str) -> Status | None:
        """As that host's supervisor tells it; None while it does not answer."""
        done = self.run(node, "status", "--json")
        return msgspec.json.decode(done.stdout, type=Status) if done.returncode == 0 else None

    def registered(self, node: str) -> dict[str, str]:
        """Every ready actor that this host knows of, and the node that it is on."""
        status = self.status(node)
        actors = () if status is None else status.registered
        return {
            f"{actor.role}/{actor.instance}": actor.host
            for actor in actors
            if actor.state == "ready"
        }

    def until(
        self, condition: Callable[[], bool], what: str, within_s: float = DEADLINE_S
    ) -> float:
        """Wait for what another host's processes do; how long it took."""
        began = time.monotonic()
        while not condition():
            passed = time.monotonic() - began
            assert passed < within_s, f"not within {within_s:g} s: {what}\n{self.logs()}"
        return time.monotonic() - began

    def logs(self) -> str:
        """The end of what every supervisor said."""
        return "\n".join(
            f"== {node}\n{(self._base / f'{node}.log').read_text()[-3000:]}"
            for node in self.supervisors
        )

    @contextmanager
    def streams(self, number: int, tokens: int) -> Iterator[list[dict[str, Any]]]:
        """Inside, all of them have begun; after it the list has what became of each."""
        client = (sys.executable, "-m", "tests.hosts.client", f"http://127.0.0.1:{PORT}")
        process = subprocess.Popen(
            self.net.inside(1, *client, str(number), str(tokens)),
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
        )
        found: list[dict[str, Any]] = []
        try:
            assert process.stdout is not None, "it was asked for"
            assert process.stdout.readline() == b"begun\n", self.logs()
            yield found
            found += [msgspec.json.decode(line) for line in process.stdout]
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None, "it was asked for"
            process.stdout.close()

    def ask(self, question: str) -> str:
        """One greedy answer of the demonstration model, asked on the first host."""
        body = {
            "model": "understudy/capitals",
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
        }
        done = subprocess.run(
            self.net.inside(
                1,
                *(sys.executable, "-c", ASK),
                f"http://127.0.0.1:{PORT}/v1/chat/completions",
                msgspec.json.encode(body).decode(),
            ),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stderr}\n{self.logs()}"
        return done.stdout

    def lose(self, node: str) -> None:
        """A host ends without a word: nothing of it reaches the network any more."""
        number = self.number(node)
        self.net.cut(number)
        self.net.kill(number)
        self.supervisors.pop(node).wait()

    def stop(self) -> None:
        for process in self.supervisors.values():
            process.send_signal(signal.SIGTERM)
        for process in self.supervisors.values():
            process.wait(DEADLINE_S)


@contextmanager
def hosts(
    base: Path,
    topology: Path,
    nodes: Sequence[str] = NODES,
    *,
    sets: Sequence[str] = (),
    start: Sequence[str] | None = None,
) -> Iterator[Hosts]:
    """A network with a host for each of the topology's nodes, and a supervisor on it; nothing is
    left of either. `sets`: as for `--set`. `start`: only on these."""
    with network(len(nodes)) as net:
        running = Hosts(net, base, topology, nodes, sets)
        try:
            running.make_certificates()
            for node in nodes:
                (base / node).mkdir()
                if start is None or node in start:
                    running.start(node)
            yield running
        finally:
            running.stop()
