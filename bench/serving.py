"""A supervisor of a benchmark's own: started, listened to, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from supervisor.services import free_ports

START_S = 120.0
END_S = 60.0


class Said(msgspec.Struct):
    """What is of interest in the supervisor's log."""

    event: str = ""
    child: str = ""
    pid: int = 0
    urls: list[str] = []
    models: list[str] = []


class Served:
    """A service in processes of its own."""

    def __init__(self, supervisor: asyncio.subprocess.Process) -> None:
        self.supervisor = supervisor
        self.url = ""
        self.model = ""
        self.pids: dict[str, int] = {}
        """Of every child."""
        self.ready_at: dict[str, list[float]] = {}
        """Of every child, when it became ready, on the monotonic clock."""
        self.ready = asyncio.Event()
        self.news = asyncio.Event()
        """Set with every line of the log."""

    def told(self, said: Said) -> None:
        """A line of the log, as it comes in."""
        match said.event:
            case "child_starting":
                self.pids[said.child] = said.pid
            case "child_ready":
                self.ready_at.setdefault(said.child, []).append(time.monotonic())
            case "ready":
                self.url, self.model = said.urls[0], said.models[0]
                self.ready.set()
        self.news.set()

    def resident_mb(self) -> dict[str, float]:
        """The resident memory of every child that is there."""
        found = {}
        for child, pid in self.pids.items():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            except (OSError, IndexError):
                continue  # it has ended
            found[child] = pages * 4096 / 1e6
        return found

    def cpu_s(self) -> dict[str, float]:
        """The CPU time that every child has used so far."""
        tick = os.sysconf("SC_CLK_TCK")
        found = {}
        for child, pid in self.pids.items():
            try:
                text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
            except OSError:
                continue
            fields = text.rpartition(")")[2].split()
            found[child] = (int(fields[11]) + int(fields[12])) / tick
        return found

    async def back(self, child: str, after: int) -> float:
        """When the child had become ready more than `after` times."""
        async with asyncio.timeout(START_S):
            while len(self.ready_at.get(child, [])) <= after:
                self.news.clear()
                await self.news.wait()
        return self.ready_at[child][after]


@asynccontextmanager
async def serving(topology: Path, state: Path, sets: Sequence[str] = ()) -> AsyncIterator[Served]:
    """The topology, ready; `sets` as for `supervise --set`. Its log is kept under `state`."""
    environ = {**os.environ, "UNDERSTUDY_STATE_DIR": str(state)}
    command = (sys.executable, "-m", "supervisor", "up", str(topology))
    process = await asyncio.create_subprocess_exec(
        *command,
        *("--port", str(free_ports(1)[0])),
        *(word for one in sets for word in ("--set", one)),
        env=environ,
        stderr=asyncio.subprocess.PIPE,
    )
    served = Served(process)
    listening = asyncio.create_task(_listen(process, served, state / "supervisor.log"))
    try:
        async with asyncio.timeout(START_S):
            await served.ready.wait()
        yield served
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(END_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await listening


async def _listen(process: asyncio.subprocess.Process, served: Served, log: Path) -> None:
    assert process.stderr is not None
    with log.open("wb") as file:
        while line := await process.stderr.readline():
            file.write(line)
            try:
                served.told(msgspec.json.decode(line, type=Said))
            except msgspec.MsgspecError:
                continue  # not a line of its log
    served.ready.set()
