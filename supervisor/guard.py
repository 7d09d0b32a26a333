"""Ends what a dead supervisor leaves, when nobody takes it over: `python -m supervisor.guard`.

    supervisor.guard STATE_DIR ORPHAN_TIMEOUT_S LEAVE_S

Nodes without a supervisor leave by themselves, but NATS and etcd know nothing of one, and a
frozen node does nothing by itself. So each supervisor has a guard among its children, which
outlives it. It waits for the supervisor's end on a pidfd, and for a successor by watching the lock
file being written. A successor is guarded like its predecessor, whether it takes the children over
or is gone again at once for a mistake in its topology; so a guard never has to be replaced.
Without a successor for ORPHAN_TIMEOUT_S nodes begin to leave; as soon as they have, or after
LEAVE_S, the guard takes the lock, so that no newcomer can step in half-way, and ends the rest.

It does nothing but wait, for weeks perhaps, so it imports little; asyncio only for the end.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import msgspec

from actors.runtime.pids import is_alive
from supervisor.inotify import watch_writes
from supervisor.layout import Layout
from supervisor.runstate import Lock, LockHeldError, read_holder, read_run_state, this_process

EXIT_USAGE = 2
_EVENT_BYTES = 4096


def command_line(layout: Layout, orphan_timeout_s: float, leave_s: float) -> tuple[str, ...]:
    """What to execute for a guard."""
    argv = (sys.executable, "-P", "-m", "supervisor.guard")
    return (*argv, str(layout.state), f"{orphan_timeout_s:g}", f"{leave_s:g}")


class Guard:
    """Guards one namespace, whoever supervises it."""

    def __init__(self, layout: Layout, *, orphan_timeout_s: float, leave_s: float) -> None:
        """Raises OSError when the lock file was never made."""
        self._layout = layout
        self._orphan_timeout_s = orphan_timeout_s
        self._leave_s = leave_s
        # Before anybody is looked for: what is written from here on is not missed.
        self._written = watch_writes(layout.lock)

    def serve(self) -> None:
        """Return when everything has been ended."""
        while True:
            self._outlive_holder()
            if self._is_succeeded(self._orphan_timeout_s):
                continue
            with contextlib.ExitStack() as opened:
                nodes = self._open_nodes(opened)
                if self._is_succeeded(self._leave_s, nodes):
                    continue
            if self._clear_up():
                return

    def _outlive_holder(self) -> None:
        """Return when nobody alive has the lock."""
        while (pid := self._holder()) is not None:
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(pid)
                try:
                    # Asked again with the descriptor open: it may have been another's by then.
                    if self._holder() == pid:
                        _wait([pidfd], None)
                finally:
                    os.close(pidfd)

    def _holder(self) -> int | None:
        holder = read_holder(self._layout.lock)
        if holder is None or not is_alive(holder.pid, holder.pid_started):
            return None
        return holder.pid

    def _is_succeeded(self, timeout_s: float, leaving: Collection[int] | None = None) -> bool:
        """Wait for a new holder; with `leaving`, no longer than for the end of all of these."""
        deadline = time.monotonic() + timeout_s
        staying = None if leaving is None else set(leaving)
        while self._holder() is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0 or staying == set():
                return False
            readable = _wait([self._written, *(staying or ())], left_s)
            if self._written in readable:
                os.read(self._written, _EVENT_BYTES)
            if staying is not None:
                staying -= readable
        return True

    def _open_nodes(self, opened: contextlib.ExitStack) -> list[int]:
        """A pidfd of each node that still runs."""
        last = read_run_state(self._layout.run)
        found = []
        for child in () if last is None else last.children:
            if child.server:
                continue
            with contextlib.suppress(ProcessLookupError):
                pidfd = os.pidfd_open(child.pid)
                opened.callback(os.close, pidfd)
                if is_alive(child.pid, child.pid_started):
                    found.append(pidfd)
        return found

    def _clear_up(self) -> bool:
        """End what is left; False when somebody else has the lock after all."""
        last = read_run_state(self._layout.run)
        who = "a supervisor" if last is None else f"supervisor {last.supervisor.pid}"
        me = msgspec.structs.replace(
            this_process(self._layout.namespace, Path(), self._layout.node),
            topology=f"the clearing up after {who}",
        )
        # `supervise down` asks the lock's holder to end, and waits for it: this is what it means.
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
        try:
            lock = Lock(self._layout.lock, me)
        except LockHeldError:
            signal.signal(signal.SIGTERM, before)
            return False
        import asyncio  # noqa: PLC0415 - see the module

        from supervisor import leftovers  # noqa: PLC0415 - see the module

        rest = [child for child in (last.children if last else ()) if child.pid != me.pid]
        recorded = {me.pid, *(child.pid for child in rest)}
        rest += leftovers.find_unrecorded(self._layout.state, recorded)
        ended = asyncio.run(leftovers.end_leftovers(rest))
        names = ", ".join(child.name for child in ended) or "nothing"
        print(f"guard: {who} is gone; ended {names}", file=sys.stderr, flush=True)
        self._layout.run.unlink(missing_ok=True)
        self._layout.socket.unlink(missing_ok=True)
        lock.release()
        return True


def _wait(descriptors: Iterable[int], timeout_s: float | None) -> set[int]:
    """Those of the descriptors that became readable, in time or at all."""
    poll = select.poll()  # select.select ends at descriptor 1023
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    # Rounded up: a wait that ends too early would be begun again at once.
    timeout_ms = None if timeout_s is None else math.ceil(timeout_s * 1000)
    return {descriptor for descriptor, _ in poll.poll(timeout_ms)}


def main(arguments: list[str] | None = None) -> int:
    """Guard a namespace; return the exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    try:
        state, orphan_timeout_s, leave_s = argv[0], float(argv[1]), float(argv[2])
    except (IndexError, ValueError):
        print(__doc__, file=sys.stderr)
        return EXIT_USAGE
    layout = Layout(Path(state), os.environ)
    Guard(layout, orphan_timeout_s=orphan_timeout_s, leave_s=leave_s).serve()
    return 0


if __name__ == "__main__":
    sys.exit(main())
