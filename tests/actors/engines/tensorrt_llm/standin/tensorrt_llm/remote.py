"""Ranks that `trtllm-llmapi-launch` has started: the server beside rank 0, and who asks it.

One client at a time, and the next only when the ranks are done with the last one's work: who dies
in the middle leaves them waiting for ever.
"""

from __future__ import annotations

import os
import threading
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from typing import Any
from urllib.parse import urlsplit

from . import sessions

STOP = "stop the server"
_FORBIDDEN = ("OMPI_", "PMIX_", "PMI_", "SLURM_")


def _where() -> tuple[tuple[str, int], bytes]:
    found = urlsplit(os.environ["TLLM_SPAWN_PROXY_PROCESS_IPC_ADDR"])
    key = bytes.fromhex(os.environ["TLLM_SPAWN_PROXY_PROCESS_IPC_HMAC_KEY"])
    return (str(found.hostname), int(found.port or 0)), key


def connect() -> Any:
    address, key = _where()
    while True:
        try:
            return Client(address, authkey=key)
        except ConnectionRefusedError:
            threading.Event().wait(0.02)  # the server is on its way up, as ZeroMQ would wait too


def team(size: int, *, transfer: bool) -> RemoteTeam | None:
    """The ranks of an engine of that size, where a script has started some."""
    if os.environ.get("TLLM_SPAWN_PROXY_PROCESS") != "1":
        return None
    if any(name.startswith(_FORBIDDEN) for name in os.environ):
        raise RuntimeError("MPI is initialised twice: the proxy is a rank itself")
    return RemoteTeam(size, transfer)


class RemoteTeam:
    """What an engine sees of them."""

    def __init__(self, size: int, transfer: bool) -> None:
        self._server = connect()
        self._lock = threading.Lock()
        self._server.send((size, transfer))
        answer = self._server.recv()
        if answer != "computing":
            raise ValueError(answer)

    def step(self) -> None:
        with self._lock:
            self._server.send("step")
            self._server.recv()

    def shutdown(self) -> None:
        with self._lock:
            self._server.send("done")
            self._server.recv()
            self._server.close()


def serve() -> None:
    """Be the server: rank 0 of the program, whose other ranks are in `mgmn_worker_node`."""
    comm = sessions.mpi_comm()
    session = sessions.MpiCommSession(comm=comm, n_workers=comm.Get_size())
    address, key = _where()
    with Listener(address, authkey=key) as listener:
        while True:
            try:
                client = listener.accept()
            except AuthenticationError:
                continue
            with client:
                asked = client.recv()
                if asked == STOP:
                    break
                _lead(client, session, *asked)
    session.shutdown()


def _lead(client: Any, session: sessions.MpiCommSession, size: int, transfer: bool) -> None:
    if size != session.n_workers:
        client.send(f"the session has {session.n_workers} ranks, the model wants {size}")
        return
    team = sessions.Team(session, transfer=transfer)
    client.send("computing")
    try:
        while client.recv() == "step":
            team.step()
            client.send("done")
        team.dismiss()
        client.send("done")
    except (EOFError, ConnectionError):
        # Nobody tells the ranks, and they are waited for.
        threading.Event().wait()
