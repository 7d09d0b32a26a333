"""The ranks of an engine that MPI has started: the session over them, and what they do in it.

Here, too, the rules are kept and the work is not done: every rank must have been told its
communicator and the switches of the environment before a session begins, must take part in every
step, and is waited for, for ever, when it has died.
"""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

_TAG = 1 << 10
_LOOK_S = 0.001

communicators: list[Any] = []
"""What `set_mpi_comm` was told, in order."""


def set_mpi_comm(communicator: Any) -> None:
    communicators.append(communicator)


def mpi_comm() -> Any:
    from mpi4py import MPI

    return communicators[-1] if communicators else MPI.COMM_WORLD


class MpiCommSession:
    def __init__(self, comm: Any = None, n_workers: int = 1) -> None:
        if comm.Get_rank() != 0:
            raise RuntimeError(f"only rank 0 can start multi-node session, got {comm.Get_rank()}")
        if comm.Get_size() != n_workers:
            raise ValueError("n_workers must be the size of the communicator")
        if not _external(n_workers):
            raise RuntimeError("The LLM instance should be launched by mpirun.")
        from mpi4py.futures import MPICommExecutor

        self.n_workers = n_workers
        self._context: Any = MPICommExecutor(comm)
        self._pool: Any = self._context.__enter__() if n_workers > 1 else None

    def submit(self, task: Any, *arguments: Any) -> list[Any]:
        """On all ranks but this one, whose own task is a thread."""
        if self._pool is None:
            return []
        return [self._pool.submit(task, *arguments) for _ in range(1, self.n_workers)]

    def shutdown(self) -> None:
        if self._pool is not None:
            self._context.__exit__(None, None, None)


def _external(world_size: int) -> bool:
    """Whether ranks that MPI has started are used, as `external_mpi_comm_available` says."""
    from mpi4py import MPI

    size: int = mpi_comm().Get_size()
    whole = MPI.COMM_WORLD.Get_size()
    return whole > size or (size == world_size and size > 1)


class Team:
    """The leader's view of the ranks that compute with it."""

    def __init__(self, session: MpiCommSession, transfer: bool) -> None:
        self._session = session
        self._comm = mpi_comm()
        self._lock = threading.Lock()
        _say_where(transfer)
        self._futures = session.submit(compute, session.n_workers, transfer)

    def step(self) -> None:
        """One iteration, of all ranks."""
        with self._lock:
            for rank in range(1, self._session.n_workers):
                self._comm.send("step", dest=rank, tag=_TAG)
            for rank in range(1, self._session.n_workers):
                self._comm.recv(source=rank, tag=_TAG)

    def dismiss(self) -> None:
        """Let all ranks go, to another engine or to their end."""
        for rank in range(1, self._session.n_workers):
            self._comm.send("stop", dest=rank, tag=_TAG)
        for future in self._futures:
            assert future.result() >= 0

    def shutdown(self) -> None:
        self.dismiss()
        self._session.shutdown()


def compute(world_size: int, transfer: bool) -> int:
    """A rank's whole part: the number of steps it has taken part in."""
    comm = mpi_comm()
    if comm.Get_size() != world_size:
        raise RuntimeError(f"a rank of {comm.Get_size()} was given work of {world_size}")
    _say_where(transfer)
    steps = 0
    while True:
        while not comm.iprobe(source=0, tag=_TAG):
            time.sleep(_LOOK_S)
        if comm.recv(source=0, tag=_TAG) == "stop":
            return steps
        steps += 1
        comm.send("done", dest=0, tag=_TAG)


def _say_where(transfer: bool) -> None:
    from mpi4py import MPI

    if transfer and not any(name.startswith("TRTLLM_USE_") for name in os.environ):
        raise RuntimeError("a rank does not know how KV blocks are transferred")
    found = {
        "rank": mpi_comm().Get_rank(),
        "size": mpi_comm().Get_size(),
        "world": MPI.COMM_WORLD.Get_size(),
        "pid": os.getpid(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }
    directory = Path(os.environ["TENSORRT_LLM_STANDIN_WORLD"])
    (directory / f"rank-{MPI.COMM_WORLD.Get_rank()}.json").write_text(json.dumps(found))
