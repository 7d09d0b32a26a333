"""A supervisor of our own with everything under it, to be looked at and to be hurt."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from actors.runtime.pids import is_alive
from supervisor.calls import Answer, Call, GetStatus, Status
from supervisor.layout import Layout
from supervisor.runstate import RunningChild, read_holder, read_run_state
from supervisor.services import free_ports

CHAOS = Path(__file__).parent / "chaos.yaml"
DEADLINE_S = 60.0
POLL_S = 0.02
WORKER_GAUGES = ("running", "waiting", "kv_used")
COUNTERS = ("replays", "asked", "stale", "waited")
"""Of an ingress: see `Ingress.gauges`."""


class Unsettled(Exception):
    """The service did not come back to rest in time; says what is still out of place."""


class Stage:
    """One running topology. Everything is asked of the run state and the control socket, so it
    works on with whatever supervisor is there, and without one."""

    def __init__(
        self,
        base: Path,
        topology: Path,
        namespace: str,
        *arguments: str,
        inside: Sequence[str] = (),
    ) -> None:
        """`inside`: a command that runs the supervisor's, elsewhere than here."""
        self.base = base
        self.topology = topology
        self.namespace = namespace
        self.port = free_ports(1)[0]
        left_out = {"NATS_SERVER", "ETCD_ENDPOINTS", "NO_COLOR"}
        kept = {key: value for key, value in os.environ.items() if key not in left_out}
        self.environ = {**kept, "UNDERSTUDY_STATE_DIR": str(base)}
        self.layout = Layout(base / namespace, self.environ)
        self._arguments = arguments
        self._inside = inside
        self._process: asyncio.subprocess.Process | None = None
        self._ended: list[asyncio.subprocess.Process] = []
        self._log = base / "supervisor.log"

    @property
    def address(self) -> tuple[str, int]:
        return ("127.0.0.1", self.port)

    # -- life ----------------------------------------------------------------------------------

    async def start_supervisor(self) -> None:
        """Start one; return when every child is ready."""
        if self._process is not None:
            self._ended.append(self._process)
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(*self._inside, sys.executable, "-m", "supervisor", "up", str(self.topology)),
                *("--namespace", self.namespace, "--port", str(self.port), *self._arguments),
                env=self.environ,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=log,
            )
        await self.until(self._all_running, "everything running")

    async def supervisor_gone(self) -> None:
        """Return when the supervisor that was killed is no more."""
        assert self._process is not None, "start comes first"
        await self._process.wait()

    async def reap(self) -> None:
        """Return when no supervisor of ours is left."""
        await asyncio.gather(*(one.wait() for one in (self._process, *self._ended) if one))

    async def end(self) -> int:
        """Ask the supervisor to stop; the exit code."""
        assert self._process is not None, "start comes first"
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await self._process.wait()
            except TimeoutError:
                self.kill_everything()
                await self._process.wait()
        return self._process.returncode or 0

    def kill_everything(self) -> None:
        """End every process that was started for this namespace, by any supervisor."""
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    # -- looking -------------------------------------------------------------------------------

    @property
    def supervisor_pid(self) -> int:
        holder = read_holder(self.layout.lock)
        return 0 if holder is None else holder.pid

    @property
    def supervised(self) -> bool:
        holder = read_holder(self.layout.lock)
        return holder is not None and is_alive(holder.pid, holder.pid_started)

    def children(self) -> dict[str, RunningChild]:
        """What runs, as the last supervisor wrote it down."""
        state = read_run_state(self.layout.run)
        return {} if state is None else {child.name: child for child in state.children}

    def pid(self, name: str) -> int:
        return self.children()[name].pid

    def names(self, role: str) -> list[str]:
        """`role/0`, `role/1` and so on."""
        return sorted(name for name in self.children() if name.split("/")[0] == role)

    async def ask(self, call: Call, *, timeout_s: float = 5.0) -> bytes:
        """One call of the control socket. Raises OSError, TimeoutError."""
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_unix_connection(
                str(self.layout.socket), limit=1 << 24
            )
            try:
                writer.write(msgspec.json.encode(call) + b"\n")
                return await reader.readline()
            finally:
                writer.close()

    async def order(self, call: Call, kind: type[Answer]) -> Answer:
        """A call that may take as long as it takes. Raises msgspec.ValidationError for another
        answer."""
        return msgspec.json.decode(await self.ask(call, timeout_s=DEADLINE_S), type=kind)

    async def status(self) -> Status | None:
        """None while nobody answers."""
        try:
            return msgspec.json.decode(await self.ask(GetStatus()), type=Status)
        except (OSError, TimeoutError, msgspec.MsgspecError):
            return None

    async def gauges(self) -> dict[str, dict[str, float]]:
        """By actor; of the last heartbeats."""
        status = await self.status()
        if status is None:
            return {}
        return {actor.name: actor.gauges for row in status.children for actor in row.actors}

    def sockets_of(self, pid: int) -> set[int]:
        """The remote ports of a process's TCP connections."""
        inodes = set()
        with contextlib.suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(OSError):
                    inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
        ports = set()
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                ports.add(int(fields[2].split(":")[1], 16))
        return ports

    def processes(self) -> list[int]:
        """Every living process of this namespace, whoever started it."""
        mark = f"UNDERSTUDY_STATE_DIR={self.base}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    # -- waiting -------------------------------------------------------------------------------

    async def until(
        self, good: Callable[[Status], str], what: str, *, deadline_s: float = DEADLINE_S
    ) -> None:
        """Return when `good` says nothing against a status. Raises Unsettled with what it said."""
        why = "nobody answers"
        deadline = time.monotonic() + deadline_s
        while time.monotonic() < deadline:
            status = await self.status()
            why = "nobody answers" if status is None else good(status)
            if not why:
                return
            gave_up = self._process is not None and (self._process.returncode or 0) > 0
            if status is None and gave_up:
                raise Unsettled(f"not {what}: the supervisor has given up; {self._last_words()}")
            await asyncio.sleep(POLL_S)
        raise Unsettled(f"not {what} after {deadline_s:.0f} s: {why}")

    def _last_words(self) -> str:
        """The last line of the supervisors' log."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return lines[-1] if lines else "it has said nothing"

    @staticmethod
    def _all_running(status: Status) -> str:
        bad = [f"{row.id} {row.state}" for row in status.children if row.state != "running"]
        bad += [
            f"{actor.name} not ready"
            for row in status.children
            for actor in row.actors
            if actor.incarnation is None
        ]
        return ", ".join(bad)

    async def all_running(self, *, deadline_s: float = DEADLINE_S) -> None:
        """Return when every child is up. Raises Unsettled."""
        await self.until(self._all_running, "everything running", deadline_s=deadline_s)

    async def at_rest(self, *, deadline_s: float = DEADLINE_S) -> None:
        """Return when every child is up and nothing of any request is left. Raises Unsettled."""

        def good(status: Status) -> str:
            bad = [self._all_running(status)]
            for row in status.children:
                for actor in row.actors:
                    left = {k: v for k in WORKER_GAUGES if (v := actor.gauges.get(k, 0.0)) > 0}
                    if actor.role == "ingress" and actor.gauges.get("open"):
                        left["open"] = actor.gauges["open"]
                    if left:
                        bad.append(f"{actor.name} {left}")
            return ", ".join(part for part in bad if part)

        await self.until(good, "at rest", deadline_s=deadline_s)


@asynccontextmanager
async def stage(
    base: Path,
    *arguments: str,
    topology: Path = CHAOS,
    namespace: str = "chaos",
    inside: Sequence[str] = (),
) -> AsyncIterator[Stage]:
    """A running service; at the end nothing of it is left, whatever state it was in."""
    running = Stage(base, topology, namespace, *arguments, inside=inside)
    try:
        await running.start_supervisor()
        yield running
        if running.supervised:
            await running.end()
    finally:
        running.kill_everything()
        await running.reap()
