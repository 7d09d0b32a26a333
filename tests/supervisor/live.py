"""A real `supervise` in a process of its own, and what a test wants to know of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.runtime.process import NodeSpec
from supervisor.calls import ChildRow, Status
from supervisor.cli import targets
from supervisor.cli.ask import ask_status
from supervisor.layout import Layout

HELLO = Path(__file__).parents[2] / "topologies" / "examples" / "hello" / "hello.yaml"
DEADLINE_S = 90.0
"""For anything awaited here; the machine may be busy."""
LISTEN = "0A"
"""The state, in /proc/net/tcp."""
LOOPBACK = frozenset({"0100007F", "00000000000000000000000001000000"})
"""127.0.0.1 and ::1, there."""


def environment(base: Path) -> dict[str, str]:
    """Ours, with run states below `base` and no server of the machine's own."""
    left_out = {"NATS_SERVER", "ETCD_ENDPOINTS", "NO_COLOR"}
    kept = {
        key: value
        for key, value in os.environ.items()
        if key not in left_out and not key.startswith("OTEL_")
    }
    return {**kept, "UNDERSTUDY_STATE_DIR": str(base)}


def supervise(base: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "supervisor", *arguments],
        env=environment(base),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


class Live:
    """A supervisor that runs in the foreground; its journal is read as it writes it."""

    def __init__(self, base: Path, *arguments: str) -> None:
        self.base = base
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", "up", *arguments],
            env=environment(base),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.journal: list[dict[str, Any]] = []
        self.said: list[str] = []
        """Lines that are not of the journal."""
        self._rest = b""
        self._read = 0
        """How much of the journal `until` has gone past."""

    def layout(self, namespace: str = "hello") -> Layout:
        return Layout(self.base / namespace, environment(self.base))

    def until(
        self, event: str, *, within_s: float = DEADLINE_S, **fields: object
    ) -> dict[str, Any]:
        """The next journal line like this, from after the last one that was waited for."""
        deadline = time.monotonic() + within_s
        while True:
            while self._read < len(self.journal):
                line = self.journal[self._read]
                self._read += 1
                if line["event"] == event and all(line.get(k) == v for k, v in fields.items()):
                    return line
            assert self._receive(deadline), f"no {event} {fields}; {self.journal} {self.said}"

    def go_past(self) -> None:
        """Have `until` look only at what is said from now on."""
        assert self.process.stderr is not None, "it was opened with a pipe"
        while select.select([self.process.stderr], [], [], 0)[0]:
            assert self._receive(time.monotonic() + DEADLINE_S), f"it has ended; {self.said}"
        self._read = len(self.journal)

    def until_first(self, child: str) -> None:
        """Return when anything at all is said of a child."""
        deadline = time.monotonic() + DEADLINE_S
        while not any(line.get("child") == child for line in self.journal):
            assert self._receive(deadline), f"nothing of {child}; {self.journal} {self.said}"

    def wait(self) -> int:
        """The exit code, once it has ended and all it said is read."""
        deadline = time.monotonic() + DEADLINE_S
        while self._receive(deadline):
            pass
        return self.process.wait(DEADLINE_S)

    def _receive(self, deadline: float) -> bool:
        assert self.process.stderr is not None, "it was opened with a pipe"
        pipe = self.process.stderr.fileno()
        readable, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        assert readable, f"nothing was said in time; before: {self.journal} {self.said}"
        content = os.read(pipe, 65536)
        *lines, self._rest = (self._rest + content).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self.journal.append(msgspec.json.decode(line))
            else:
                self.said.append(line.decode())
        return content != b""

    def status(self) -> Status:
        """What `supervise status --json` prints, without a process for it."""
        [layout] = targets.running(environment(self.base))
        return ask_status(layout.socket, DEADLINE_S)

    def child(self, name: str) -> ChildRow:
        return next(row for row in self.status().children if row.id == name)

    def pid(self, name: str) -> int:
        pid = self.child(name).pid
        assert pid is not None, f"{name} does not run"
        return pid

    def told_pid(self, name: str) -> int:
        """The same by the journal, as far as it was waited for; no command has to be run for it."""
        pid: int = next(
            line["pid"]
            for line in reversed(self.journal)
            if line.get("child") == name and "pid" in line
        )
        return pid

    def kill(self, name: str) -> None:
        """SIGKILL for a child; what the journal said before is gone past."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        self.until("child_failed", child=name)

    def node_spec(self, name: str, namespace: str = "hello") -> NodeSpec:
        """What a node was started with, the address and token of NATS included."""
        path = self.layout(namespace).node_spec(name)
        return msgspec.json.decode(path.read_bytes(), type=NodeSpec)


@contextmanager
def running(base: Path, *arguments: str) -> Iterator[Live]:
    """A supervisor that is stopped at the end, whatever state the test has left it in."""
    live = Live(base, *arguments)
    try:
        yield live
    finally:
        if live.process.poll() is None:
            live.process.send_signal(signal.SIGTERM)
            try:
                live.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                live.process.kill()
                live.process.wait()
        assert live.process.stderr is not None, "it was opened with a pipe"
        live.process.stderr.close()


def processes_of(base: Path) -> list[str]:
    """The command lines of all processes that were started with run states below `base`."""
    mark = f"UNDERSTUDY_STATE_DIR={base}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) == os.getpid():
            continue
        try:
            environ = (entry / "environ").read_bytes().split(b"\0")
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in environ:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def listening(base: Path) -> dict[int, str]:
    """The TCP ports on which anything listens that was started with run states below `base`, each
    with its address, as the kernel has both."""
    mark = f"UNDERSTUDY_STATE_DIR={base}".encode()
    inodes: set[str] = set()
    found: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            if mark not in (entry / "environ").read_bytes().split(b"\0"):
                continue
            links = [str(fd.readlink()) for fd in (entry / "fd").iterdir()]
        except OSError:
            continue  # it has just ended
        inodes.update(link[8:-1] for link in links if link.startswith("socket:["))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *fields = line.split()
            if state == LISTEN and fields[5] in inodes:
                host, port = local.split(":")
                found[int(port, 16)] = host
    return found
