"""What must be true whenever a service has come to rest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from actors.runtime.registry.base import Entry, State
from supervisor.calls import ChildRow, Status
from supervisor.leftovers import STATE_VARIABLE
from supervisor.strays import children_of


def rows_of(status: Status) -> dict[str, ChildRow]:
    """The processes, by id."""
    return {row.id: row for row in status.children if not row.is_supervisor}


def at_rest(status: Status, registered: Mapping[str, Entry]) -> bool:
    """Whether everything is up, and others can read so."""
    rows = rows_of(status).values()
    if any(row.state != "running" for row in rows):
        return False
    return not list(_unregistered(status, registered))


def violations(
    status: Status,
    registered: Mapping[str, Entry],
    state: Path,
    expected: frozenset[str],
    restarts: Mapping[str, int],
) -> Iterator[str]:
    """Everything that is not as it should be. `expected`: the ids there should be; `restarts`: by
    id, how often each was made to start again under this supervisor."""
    rows = rows_of(status)
    if rows.keys() != expected:
        yield f"status lists {sorted(rows.keys() ^ expected)} too many or too few"
    yield from (f"{row.id} is {row.state}" for row in rows.values() if row.state != "running")
    told = {row.pid: row.id for row in rows.values() if row.pid is not None}
    for pid, count in Counter(row.pid for row in rows.values()).items():
        if count > 1:
            yield f"pid {pid} is said to be {count} children"
    found = set(_processes(state)) - {status.pid}
    yield from (f"{told[pid]}, pid {pid}, does not exist" for pid in told.keys() - found)
    yield from (f"orphan: pid {pid}, {_command(pid)}" for pid in found - told.keys())
    yield from (f"zombie: pid {pid}" for pid in children_of(status.pid) if _is_zombie(pid))
    yield from _unregistered(status, registered)
    actors = {actor.name for row in rows.values() for actor in row.actors}
    yield from (f"{name} is registered and nobody's" for name in registered.keys() - actors)
    for id_, row in rows.items():
        if row.restarts != restarts.get(id_, 0):
            yield f"{id_} counts {row.restarts} restarts, not {restarts.get(id_, 0)}"


def _unregistered(status: Status, registered: Mapping[str, Entry]) -> Iterator[str]:
    """Actors that others do not see as the supervisor does."""
    for row in status.children:
        for actor in row.actors:
            entry = registered.get(actor.name)
            if entry is None:
                yield f"{actor.name} is not registered"
            elif (entry.pid, entry.incarnation) != (row.pid, actor.incarnation):
                yield f"{actor.name} is pid {row.pid}, and registered as pid {entry.pid}"
            elif entry.state is not State.READY:
                yield f"{actor.name} is registered as {entry.state}"


def _processes(state: Path) -> Iterator[int]:
    """Leaders of sessions that were started for this state directory, by their environment."""
    mark = f"{STATE_VARIABLE}={state}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        pid = int(entry.name)
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0") and os.getsid(pid) == pid:
                yield pid
        except OSError:
            continue  # it has just ended, or is another user's


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return "gone by now"


def left_over(state: Path) -> list[str]:
    """What still runs for this state directory."""
    return [f"left over: pid {pid}, {_command(pid)}" for pid in _processes(state)]
