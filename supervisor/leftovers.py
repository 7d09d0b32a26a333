"""Ends what a supervisor that was killed has left running."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Collection, Iterable
from pathlib import Path

from actors.runtime.pids import is_alive, process_started
from supervisor.runstate import RunningChild

GRACE_S = 5.0
"""From SIGTERM to SIGKILL."""


STATE_VARIABLE = "UNDERSTUDY_STATE"
"""In the environment of all that a supervisor starts: its state directory."""


def find_unrecorded(state: Path, recorded: Collection[int]) -> list[RunningChild]:
    """Children of an earlier supervisor that was killed before it could write them down.

    `recorded`: the pids that are known. Only leaders of sessions are looked for, as all our
    children are: what they start themselves goes with them.
    """
    mark = f"{STATE_VARIABLE}={state}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or (pid := int(entry.name)) in recorded:
            continue
        try:
            marked = mark in (entry / "environ").read_bytes().split(b"\0")
            if marked and os.getsid(pid) == pid:
                started = process_started(pid)
                found.append(
                    RunningChild(name=f"process {pid}", pid=pid, pid_started=started, run=0)
                )
        except OSError:
            continue  # somebody else's, or it has just ended
    return found


async def end_leftovers(
    children: Iterable[RunningChild], *, grace_s: float = GRACE_S
) -> list[RunningChild]:
    """Terminate those that still run, the last started first; return them, all gone.

    Nodes before servers, as nodes say good-bye through the servers.
    """
    living = [child for child in children if is_alive(child.pid, child.pid_started)]
    nodes = [child for child in living if not child.server]
    servers = [child for child in living if child.server]
    for group in (nodes, servers):
        await asyncio.gather(*(_end(child, grace_s) for child in reversed(group)))
    return living


async def _end(child: RunningChild, grace_s: float) -> None:
    try:
        pidfd = os.pidfd_open(child.pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    loop.add_reader(pidfd, gone.set)
    try:
        # Asked again with the descriptor open: from here on the pid cannot change its owner.
        if not is_alive(child.pid, child.pid_started):
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await gone.wait()
        # Also when it has gone: what it started itself is still in the group of its number,
        # which nobody else gets while a member is left.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await gone.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
