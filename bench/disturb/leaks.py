"""What a service holds: processes, file descriptors, memory. Compared before and after."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from bench.disturb.stage import Stage

FDS_SLACK = 40
"""More open files than before, of one process, are a leak beyond this."""
MEMORY_FACTOR = 1.5
MEMORY_SLACK_BYTES = 64 * 1024 * 1024
PAGE_BYTES = 4096


class Held(msgspec.Struct, frozen=True):
    """By one process."""

    fds: int
    memory_bytes: int


class Holdings(msgspec.Struct, frozen=True):
    """By a whole service."""

    by_name: dict[str, Held]
    strays: list[int]
    """Living processes of the namespace that are nobody's child."""
    zombies: int


def look(stage: Stage) -> Holdings:
    """What is held now."""
    known = {name: child.pid for name, child in stage.children().items()}
    known["supervisor"] = stage.supervisor_pid
    return Holdings(
        {name: held for name, pid in known.items() if (held := _held(pid)) is not None},
        sorted(set(stage.processes()) - set(known.values())),
        _zombies(stage.supervisor_pid),
    )


def leaks(before: Holdings, after: Holdings) -> list[str]:
    """What has grown more than it may, one sentence each."""
    found = []
    for name, now in after.by_name.items():
        then = before.by_name.get(name)
        if then is None:
            continue
        if now.fds > then.fds + FDS_SLACK:
            found.append(f"{name} holds {now.fds} files, {then.fds} before")
        if now.memory_bytes > then.memory_bytes * MEMORY_FACTOR + MEMORY_SLACK_BYTES:
            megabytes = (now.memory_bytes >> 20, then.memory_bytes >> 20)
            found.append(f"{name} holds {megabytes[0]} MB, {megabytes[1]} MB before")
    if after.strays:
        found.append(f"processes {after.strays} are nobody's child")
    if after.zombies:
        found.append(f"{after.zombies} zombies under the supervisor")
    return found


def _held(pid: int) -> Held | None:
    try:
        fds = len(list(Path(f"/proc/{pid}/fd").iterdir()))
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return None
    return Held(fds, resident)


def _zombies(parent: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError, IndexError):
                state, ppid = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                count += state == "Z" and int(ppid) == parent
    return count
