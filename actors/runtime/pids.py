"""Telling processes apart when the system uses a pid again."""

from __future__ import annotations

from pathlib import Path


def process_started(pid: int) -> int:
    """The process's start time in clock ticks after boot; 0 when there is no such process.

    A process that has ended and waits to be reaped (a zombie) counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    # The second field is the command in parentheses, and may itself contain both.
    fields = stat.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[19])


def parent_of(pid: int) -> int:
    """The parent's pid; 0 when there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def descends_from(pid: int, ancestor: int) -> bool:
    """Whether that process has started this one, or has started one that did."""
    while pid > 1:
        pid = parent_of(pid)
        if pid == ancestor:
            return True
    return False


def is_alive(pid: int, started: int) -> bool:
    """Whether the very process that had this pid and start time still runs."""
    return started != 0 and process_started(pid) == started


def name_this_process(name: str) -> None:
    """What `top` and `ps -o comm` show for it; the system keeps 15 bytes."""
    Path("/proc/self/comm").write_bytes(name.encode()[:15])
