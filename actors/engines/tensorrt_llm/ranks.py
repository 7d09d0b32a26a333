"""An engine whose ranks were started by MPI, not by TensorRT-LLM itself.

The leader of a server, rank 0 of its communicator, hosts the `LLM` and gives it a session over the
communicator. The other ranks `join`: they compute what the leader sends them until it is done.
"""

from __future__ import annotations

import importlib
from typing import Any

from actors.engines.base import EngineFailed


class Ranks:
    """The ranks of one server, seen from its leader. `communicator` is mpi4py's."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def session(self) -> Any:
        """What `LLM` takes as `_mpi_session`. Raises EngineFailed."""
        use_communicator(self._communicator)
        try:
            kind = importlib.import_module("tensorrt_llm.llmapi").MpiCommSession
        except AttributeError as error:
            raise EngineFailed("this TensorRT-LLM cannot use ranks that MPI has started") from error
        return kind(comm=self._communicator, n_workers=self._communicator.Get_size())


def use_communicator(communicator: Any) -> None:
    """Tell TensorRT-LLM, on every rank and before anything is made, which ranks are its own."""
    importlib.import_module("tensorrt_llm._utils").set_mpi_comm(communicator)


def join(communicator: Any) -> None:
    """Serve the leader from any other rank; returns when it closes its session."""
    use_communicator(communicator)
    futures = importlib.import_module("mpi4py.futures")
    with futures.MPICommExecutor(communicator) as executor:
        if executor is not None:
            raise RuntimeError("the leader of a server was told to join it")
