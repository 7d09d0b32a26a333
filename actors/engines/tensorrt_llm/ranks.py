"""An engine whose ranks were started by MPI, not by TensorRT-LLM itself.

The leader of a server, rank 0 of its communicator, hosts the `LLM` and gives it a session over the
communicator. The other ranks `follow`: they tell TensorRT-LLM which ranks are theirs and compute
what the leader's session sends them, until it is closed.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any

import msgspec

from actors.engines import world
from actors.engines.base import EngineFailed

GPU_VARIABLE = "CUDA_VISIBLE_DEVICES"
RANKS_VARIABLE = "UNDERSTUDY_RANKS"
"""Set in a leader by whoever made it one: how many ranks its server has."""


class Ranks:
    """The ranks of one server, seen from its leader: this one and the next of its MPI program."""

    def __init__(self, size: int) -> None:
        self._size = size

    def session(self, switches: Mapping[str, str]) -> Any | None:
        """What `LLM` takes as `_mpi_session`; None where it needs none: for one rank, alone.

        `switches`: of the environment. TensorRT-LLM reads them on every rank. Raises EngineFailed.
        """
        if self._size == 1 and world.place()[1] == 1:
            return None
        # Taken over by all: with CUDA_VISIBLE_DEVICES each rank finds a GPU of the server's.
        seen = {GPU_VARIABLE: os.environ[GPU_VARIABLE]} if GPU_VARIABLE in os.environ else {}
        call = msgspec.msgpack.encode({**seen, **switches})
        communicator = world.call_followers(self._size, call)
        _use_communicator(communicator)
        try:
            kind = importlib.import_module("tensorrt_llm.llmapi").MpiCommSession
        except AttributeError as error:
            raise EngineFailed("this TensorRT-LLM cannot use ranks that MPI has started") from error
        return kind(comm=communicator, n_workers=self._size)


def given(environ: Mapping[str, str]) -> Ranks | None:
    """The ranks that this process was told it leads; None when it is no rank of any program."""
    size = environ.get(RANKS_VARIABLE)
    return None if size is None else Ranks(int(size))


def follow(leader: int, size: int, leader_pid: int = 0) -> int:
    """Be a rank of the server whose leader is that rank of the MPI program; the exit code.
    `leader_pid`: 0 for a leader on another host. Waiting burns no core, and neither does mpi4py's
    pool while it has nothing to do. Raises EngineFailed."""
    called = world.await_call(leader, size, leader_pid)
    if called is None:
        return 0
    switches, communicator = called
    os.environ.update(msgspec.msgpack.decode(switches, type=dict[str, str]))
    _use_communicator(communicator)
    futures = importlib.import_module("mpi4py.futures")
    # Comes back when the leader has closed its session.
    with futures.MPICommExecutor(communicator) as executor:
        if executor is not None:
            raise RuntimeError("the leader of a server was told to follow it")
    # It has closed its engine, not yet done all else, and would take this rank's end for a loss.
    world.await_call(leader, size, leader_pid)
    return 0


def _use_communicator(communicator: Any) -> None:
    """Tell TensorRT-LLM, on every rank and before anything is made, which ranks are its own."""
    try:
        importlib.import_module("tensorrt_llm._utils").set_mpi_comm(communicator)
    except ImportError as error:
        raise EngineFailed(f"TensorRT-LLM is not installed: {error}") from error
    except AttributeError as error:
        raise EngineFailed("this TensorRT-LLM cannot use ranks that MPI has started") from error
