"""Nodes that share one mpirun, as servers on TensorRT-LLM's page do.

A *world* is a child like a zygote: its ranks come up and wait, and a node is started by telling the
rank that leads its server to be it (`actors.worker.joining`). Each place is given once. A node that
falls comes back under an mpirun of its own, and so do all when the world itself falls: a rank can
join no world that exists.

The world's mpirun lets ranks die without ending the others (`--with-ft ulfm`).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import structlog

from actors.runtime.zygote import Fork
from supervisor.launchers.local import Exit, LocalProcess
from supervisor.launchers.zygote import Outcome

_READ_BYTES = 4096
_BACKLOG = 64

log = structlog.get_logger("world")


class Member(msgspec.Struct, frozen=True):
    """One node of a world."""

    file: str
    """That describes it."""
    engine: str
    """The kind of its engine."""
    ranks: int


class WorldImage(msgspec.Struct, frozen=True, kw_only=True):
    """Which nodes share a world, in the order of their ranks."""

    name: str
    nodes: tuple[Member, ...]
    socket: str
    env: dict[str, str] = {}
    """What all nodes have alike in theirs: all ranks have it from the start. The rest only leaders
    get, with the order to be a node."""


class Here(msgspec.Struct, frozen=True, tag=True):
    """What a leading rank says of itself; see `actors.worker.joining`."""

    server: int
    pid: int
    pid_started: int


class World:
    """One running world. It does for its nodes what a zygote does."""

    def __init__(
        self,
        image: WorldImage,
        argv: tuple[str, ...],
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_file: Path,
        on_exit: Callable[[Exit], None],
    ) -> None:
        """Start it. Raises OSError."""
        self._places = {member.file: number for number, member in enumerate(image.nodes)}
        self._leaders: dict[int, tuple[socket.socket, int]] = {}
        """By server: who has called and not been told anything yet; connection and pid."""
        self._orders: dict[int, tuple[Fork, Outcome]] = {}
        """By server: what its leader is told when it calls."""
        self._loop = asyncio.get_running_loop()
        self._on_exit = on_exit
        self._path = Path(image.socket)
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)  # noqa: FBT003 - positional in the standard library
        try:
            self._listener.bind(image.socket)
            self._listener.listen(_BACKLOG)
            self.process = LocalProcess.spawn(
                argv, env=env, cwd=cwd, log=log_file, on_exit=self._exited
            )
        except OSError:
            self._listener.close()
            raise
        self._loop.add_reader(self._listener, self._called)

    def fork(
        self, spec: Path, log_file: Path, cwd: Path, env: Mapping[str, str], then: Outcome
    ) -> None:
        """Have a rank be this node; `then` is called once, later."""
        server = self._places.pop(str(spec), None)
        if server is None:
            # An mpirun of its own it is.
            self._loop.call_soon(then, "its place in the world is used")
            return
        self._orders[server] = Fork(str(spec), str(log_file), str(cwd), dict(env)), then
        self._match(server)

    @property
    def forking(self) -> bool:
        """Whether a node may have been born that we have not been told of yet: never, as ranks
        are there before they are nodes."""
        return False

    def _called(self) -> None:
        try:
            stream, _ = self._listener.accept()
        except OSError:
            return
        stream.setblocking(False)  # noqa: FBT003 - positional in the standard library
        self._loop.add_reader(stream, self._introduced, stream)

    def _introduced(self, stream: socket.socket) -> None:
        # The line is far shorter than what a socket passes on in one piece.
        self._loop.remove_reader(stream)
        try:
            here = msgspec.json.decode(stream.recv(_READ_BYTES), type=Here)
        except (OSError, msgspec.DecodeError) as error:
            log.warning("stranger_refused", error=str(error))
            stream.close()
            return
        self._leaders[here.server] = stream, here.pid
        self._match(here.server)

    def _match(self, server: int) -> None:
        if server not in self._leaders or server not in self._orders:
            return
        (stream, pid), (order, then) = self._leaders.pop(server), self._orders.pop(server)
        try:
            stream.sendall(msgspec.json.encode(order) + b"\n")
        except OSError as error:
            self._loop.call_soon(then, f"the rank has gone: {error}")
        else:
            self._loop.call_soon(then, pid)
        stream.close()

    def _exited(self, ending: Exit) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for stream, _ in self._leaders.values():
            stream.close()
        self._on_exit(ending)
        orders, self._orders = list(self._orders.values()), {}
        for _, then in orders:
            then("the world has ended")
