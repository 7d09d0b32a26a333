"""What of the machine a child may use, given to its process from outside.

Everything here is a call on a pid, so it works alike for a process that we have spawned and for
one that a zygote has forked, and nothing has to run between fork and exec. It is done in the same
step in which the pid becomes known, tens of milliseconds before an interpreter has started its
first thread; threads inherit.

Memory is limited by RLIMIT_DATA: what the process allocates for itself (heap, private writable
mappings), not what it maps read-only or shares, such as a model's file or a KV pool in shared
memory. Passing it is an allocation that fails, which the log and the exit reason tell, where a
cgroup's limit is a SIGKILL. RLIMIT_AS is of no use here: CUDA and torch reserve far more addresses
than they use. RLIMIT_DATA counts what is allocated whether it is touched or not, so give a torch
process a few GiB more than it shows as resident. To limit resident memory of a whole service, use
the unit that runs the supervisor (`MemoryMax=`).
"""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one process. None leaves what the supervisor itself has."""

    nice: int | None = None
    cpus: tuple[int, ...] | None = None
    memory_bytes: int | None = None
    open_files: int | None = None
    """None raises the limit as far as the system allows: a server with many clients needs them,
    and the traditional 1024 is for programs that use select()."""


class LimitError(OSError):
    """A limit that the system does not let us set."""

    def __init__(self, what: str, error: OSError | ValueError) -> None:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        super().__init__(f"cannot set {what}: {reason}")


def impose(limits: Limits, pid: int) -> None:
    """Apply the limits to a process that has just been started.

    A process that is gone already is no error: its exit is told in another way. Raises LimitError.
    """
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        _files(limits.open_files, pid)
        if limits.memory_bytes is not None:
            _set("memory", resource.RLIMIT_DATA, limits.memory_bytes, pid)
        # Both are of threads; a fork that was quick may have some by now.
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(ProcessLookupError):
                _on_thread(limits, int(thread.name))


def _on_thread(limits: Limits, thread: int) -> None:
    try:
        if limits.cpus is not None:
            os.sched_setaffinity(thread, limits.cpus)
    except OSError as error:
        raise _unless_gone("cpus", error) from error
    try:
        if limits.nice is not None:
            os.setpriority(os.PRIO_PROCESS, thread, limits.nice)
    except OSError as error:
        raise _unless_gone("nice", error) from error


def _files(count: int | None, pid: int) -> None:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    wanted = hard if count is None else count
    if wanted == resource.RLIM_INFINITY or wanted > hard:
        wanted = _most_files() if count is None else wanted
    if wanted != soft:
        hard = max(hard, wanted) if hard != resource.RLIM_INFINITY else hard
        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError) as error:
            raise _unless_gone("open_files", error) from error


def _most_files() -> int:
    """The system's own limit for one process, where the hard limit is infinite."""
    return int(Path("/proc/sys/fs/nr_open").read_text(encoding="ascii"))


def _set(what: str, limit: int, value: int, pid: int) -> None:
    try:
        resource.prlimit(pid, limit, (value, value))
    except (OSError, ValueError) as error:
        raise _unless_gone(what, error) from error


def _unless_gone(what: str, error: OSError | ValueError) -> OSError:
    return error if isinstance(error, ProcessLookupError) else LimitError(what, error)
