"""The supervisor that the storm goes over, as an operator's tools see it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from actors.runtime.process import NodeSpec
from actors.runtime.registry.base import Deleted, Entry, Listed, Observation, Put
from actors.runtime.registry.etcd import EtcdRegistry
from supervisor.calls import (
    Accepted,
    Answer,
    AnyAnswer,
    Apply,
    Call,
    GetStatus,
    Restart,
    Status,
)
from supervisor.layout import Layout

DEADLINE_S = 90.0
NAMESPACE = "storm"


class Service:
    """One namespace, whichever supervisor it has just now."""

    def __init__(self, topology: Path, base: Path) -> None:
        self.topology = topology
        self._environ = {**os.environ, "UNDERSTUDY_STATE_DIR": str(base)}
        self.layout = Layout(base / NAMESPACE, self._environ)
        self.supervisor: asyncio.subprocess.Process | None = None
        self.registered: dict[str, Entry] = {}
        """By actor name, as any node may read it in etcd."""
        self._registry: EtcdRegistry | None = None
        self._journal = base / "journal"

    async def start(self) -> None:
        """Start a supervisor; return when it serves."""
        command = (sys.executable, "-m", "supervisor", "up", str(self.topology))
        with self._journal.open("ab") as journal:
            self.supervisor = await asyncio.create_subprocess_exec(
                *command, env=self._environ, stderr=journal
            )
        await self.until(lambda status: status.state == "running", "serving")
        if self._registry is None:
            spec = msgspec.json.decode(
                self.layout.node_spec("router/0").read_bytes(), type=NodeSpec
            )
            self._registry = EtcdRegistry(spec.etcd, NAMESPACE)
            await self._registry.start(self._observe)

    async def kill_supervisor(self) -> None:
        assert self.supervisor is not None, "it was started"
        self.supervisor.kill()
        await self.supervisor.wait()

    async def stop(self) -> int:
        """As Ctrl-C does; return the exit code."""
        assert self.supervisor is not None, "it was started"
        if self._registry is not None:
            await self._registry.close()
        self.supervisor.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            return await self.supervisor.wait()

    async def status(self) -> Status:
        answer = await self._call(GetStatus())
        assert isinstance(answer, Status), answer
        return answer

    async def until(self, holds: Callable[[Status], bool], what: str) -> Status:
        """The first status of which it holds. Raises TimeoutError."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                while True:
                    try:
                        status = await self.status()
                    except OSError:
                        pass  # it is not up yet
                    else:
                        if holds(status):
                            return status
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise TimeoutError(f"not {what} within {DEADLINE_S:g} s") from None

    async def rolling_restart(self, entry: str) -> str:
        """Empty, or why not."""
        return _why(await self._call(Restart(id=entry, rolling=True)))

    async def apply(self, text: str) -> str:
        """Have what this text says; empty, or why not."""
        return _why(await self._call(Apply(path=str(self.topology), text=text)))

    async def would_change(self, text: str) -> tuple[str, ...]:
        """What applying this text would change."""
        call = Apply(path=str(self.topology), text=text, dry_run=True)
        answer = await self._call(call)
        return tuple(getattr(answer, "lines", (repr(answer),)))

    @property
    def environ(self) -> Mapping[str, str]:
        return self._environ

    async def _call(self, call: Call) -> Answer:
        reader, writer = await asyncio.open_unix_connection(
            str(self.layout.socket), limit=16 * 1024 * 1024
        )
        try:
            writer.write(msgspec.json.encode(call) + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise ConnectionResetError("the supervisor hung up")
        answer: Answer = msgspec.json.decode(line, type=AnyAnswer)
        return answer

    def _observe(self, observation: Observation) -> None:
        match observation:
            case Listed(entries):
                self.registered = {entry.name: entry for entry in entries}
            case Put(entry):
                self.registered[entry.name] = entry
            case Deleted(name):
                self.registered.pop(name, None)


def _why(answer: Answer) -> str:
    return "" if isinstance(answer, Accepted) else repr(answer)
