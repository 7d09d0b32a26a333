"""Descendants that nobody looks after: what a dead node had started, and nodes never heard of.

A supervisor is a subreaper, so orphans of its descendants become its children. Those that carry
our mark are ended and reaped; anything else is left alone.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Collection
from pathlib import Path

import structlog

from supervisor.recipe import NODE_VARIABLE

PATIENCE_S = 10.0
_ZYGOTE = b"actors.runtime.zygote"

log = structlog.get_logger("strays")


class Strays:
    """Looks for strays when told to, and at every SIGCHLD. `known`: the pids that are not."""

    def __init__(self, known: Callable[[], Collection[int] | None]) -> None:
        """`known` returns None while a node may just be coming into being: look later."""
        self._known = known
        self._mark = f"{NODE_VARIABLE}=".encode()
        self._dead: dict[int, float] = {}
        """Unknown zombies, and since when."""

    def open(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self.look)

    def close(self) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def look(self) -> None:
        """End and reap the strays there are now. One that takes a moment to die sends a SIGCHLD."""
        known = self._known()
        if known is None:
            return
        now = asyncio.get_running_loop().time()
        unknown = [pid for pid in children_of(os.getpid()) if pid not in known]
        self._dead = {pid: since for pid, since in self._dead.items() if pid in unknown}
        for pid in unknown:
            command = _read(pid, "cmdline")
            if not command:
                self._reap(pid, now)
            elif _ZYGOTE in command or self._is_marked(pid):
                log.warning("stray_ended", pid=pid, command=command.replace(b"\0", b" ").decode())
                os.kill(pid, signal.SIGKILL)
                self._dead[pid] = now - PATIENCE_S

    def _reap(self, pid: int, now: float) -> None:
        """Reap a zombie that nobody else waits for, as its age shows: a helper of the supervisor's
        own (a check of options, say) is reaped by whoever started it, at once."""
        if now - self._dead.setdefault(pid, now) >= PATIENCE_S:
            os.waitpid(pid, os.WNOHANG)

    def _is_marked(self, pid: int) -> bool:
        environment = _read(pid, "environ").split(b"\0")
        return any(item.startswith(self._mark) for item in environment)


def children_of(pid: int) -> list[int]:
    """The pids of all child processes, zombies included."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            found += map(int, (task / "children").read_text(encoding="ascii").split())
        except OSError:
            continue  # a thread that has just ended
    return found


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""
