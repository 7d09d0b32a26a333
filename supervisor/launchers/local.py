"""A process on this host, whose exit is an event and not something to ask for.

A pidfd becomes readable when its process ends, so the event loop hears of an exit within
microseconds, with no thread, no SIGCHLD handler and no polling; and a signal sent after the end
cannot hit another process that got the same pid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from actors.runtime.pids import process_started


class Exit(msgspec.Struct, frozen=True):
    """How a process ended: one of the two is set, or neither where only its parent knows."""

    code: int | None = None
    signal: int | None = None


class LocalProcess:
    """A process that is watched and can be signalled: one child of ours, or one of another parent.

    Those that `spawn` starts, and those a zygote forks, lead a session and a process group of
    their own. So the terminal's Ctrl-C does not reach them, and what they may have started
    themselves can be ended with them.
    """

    def __init__(
        self, pid: int, *, on_exit: Callable[[Exit], None], started: int | None = None
    ) -> None:
        """Watch a process. `started` is its start time where that is known already.

        Raises ProcessLookupError when it is no longer the same process, or gone without a trace.
        """
        self.pid = pid
        self._pidfd = os.pidfd_open(pid)
        self.started = process_started(pid) if started is None else started
        """In clock ticks after boot; tells a recycled pid apart."""
        # Asked with the descriptor open: from here on the pid cannot change its owner.
        if started is not None and process_started(pid) != started:
            os.close(self._pidfd)
            raise ProcessLookupError(f"process {pid} is another one now")
        self._popen: subprocess.Popen[bytes] | None = None
        self._on_exit = on_exit
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._ended)

    @classmethod
    def spawn(
        cls,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log: Path,
        on_exit: Callable[[Exit], None],
        pass_fds: Sequence[int] = (),
    ) -> LocalProcess:
        """Start a child. Raises OSError when it cannot be executed.

        It writes to its log file directly: a pipe through us would break with us, and the process
        is meant to survive that.
        """
        output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            popen = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        finally:
            os.close(output)
        try:
            process = cls(popen.pid, on_exit=on_exit)
        except OSError:
            # Too many open files, say: a process that nobody watches must not stay.
            popen.kill()
            popen.wait()
            raise
        # Held until the end: a Popen that is dropped earlier would reap the process itself.
        process._popen = popen
        return process

    def send(self, number: signal.Signals) -> None:
        """Signal the process alone; nothing happens when it has ended."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)

    def kill(self) -> None:
        """SIGKILL for the whole process group."""
        if self._pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        # Until it is reaped nobody else can have the pid, hence the group: what the process
        # left behind goes with it.
        self.kill()
        try:
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            status = None  # not our child: how it ended is told to its parent alone
        os.close(self._pidfd)
        self._pidfd = -1
        if status is None:
            result = Exit()
        elif status.si_code == os.CLD_EXITED:
            result = Exit(code=status.si_status)
        else:
            result = Exit(signal=status.si_status)
        if self._popen is not None:
            self._popen.returncode = result.code if result.signal is None else -result.signal
        self._on_exit(result)
