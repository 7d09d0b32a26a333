"""How much memory and CPU time the processes of each child use, from samples of `/proc`.

A child is the leader of a session of its own, so the session is what it is charged with: its
helpers count, wherever they were reparented to, and the ranks that an mpirun starts in process
groups of their own. Memory is resident memory, in which pages that
forks share count once for each of them; the honest share (PSS) would cost a walk over every page
table at each look.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import msgspec


class Sample(msgspec.Struct, frozen=True):
    """One process at one moment."""

    session: int
    cpu_s: float
    """Its own, and of the children it has waited for, who would be missed otherwise."""
    memory_bytes: int


class Usage(msgspec.Struct, frozen=True):
    """All processes of a session together."""

    cpu_s: float
    memory_bytes: int


def parse_stat(stat: str, *, ticks_per_s: int, page_bytes: int) -> Sample:
    """Read a `/proc/PID/stat`. Raises ValueError, IndexError when it is something else."""
    # The second field is the command in parentheses, and may itself contain both.
    fields = stat.rpartition(")")[2].split()
    ticks = sum(int(field) for field in fields[11:15])
    return Sample(
        session=int(fields[3]),
        cpu_s=ticks / ticks_per_s,
        memory_bytes=max(0, int(fields[21])) * page_bytes,
    )


def sum_sessions(samples: Iterable[Sample], sessions: Collection[int]) -> dict[int, Usage]:
    """What each of these sessions uses; one without a process is left out."""
    cpu_s: dict[int, float] = {}
    memory_bytes: dict[int, int] = {}
    for sample in samples:
        key = sample.session
        if key in sessions:
            cpu_s[key] = cpu_s.get(key, 0.0) + sample.cpu_s
            memory_bytes[key] = memory_bytes.get(key, 0) + sample.memory_bytes
    return {key: Usage(cpu_s[key], memory_bytes[key]) for key in cpu_s}


def look(sessions: Collection[int]) -> dict[int, Usage]:
    """What each session uses now. Reads the whole process table: call it off the event loop.

    Empty where there is no `/proc`.
    """
    return sum_sessions(_samples(), sessions) if sessions else {}


def look_at_this_process() -> Usage | None:
    """This process alone: a supervisor shares its session with the shell that started it."""
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    sample = parse_stat(stat, ticks_per_s=_ticks_per_s(), page_bytes=_page_bytes())
    return Usage(sample.cpu_s, sample.memory_bytes)


def _samples() -> Iterator[Sample]:
    ticks_per_s, page_bytes = _ticks_per_s(), _page_bytes()
    try:
        names = [name for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - fast
    except OSError:
        return
    for name in names:
        try:
            with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123 - fast
                stat = file.read()
            yield parse_stat(stat, ticks_per_s=ticks_per_s, page_bytes=page_bytes)
        except (OSError, IndexError, ValueError):
            continue  # it ended while we were looking


def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _page_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE")
