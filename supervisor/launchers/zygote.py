"""Starting nodes by forking them from a process that has their imports done.

A zygote is a child like any other to the tree: restarted when it dies, and nobody is affected by
its death but the next start. What it forks becomes our own child, because a supervisor is a
*subreaper*. See `actors.runtime.zygote` for what it does.
"""

from __future__ import annotations

import asyncio
import ctypes
import socket
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec
import structlog

from actors.runtime.process import ActorSpec
from actors.runtime.zygote import Fork, Forked, Preload, Preloaded, Unforkable, decode_answer
from supervisor.launchers.local import Exit, LocalProcess

_PR_SET_CHILD_SUBREAPER = 36
_READ_BYTES = 65536

log = structlog.get_logger("zygote")

Outcome = Callable[[int | str], None]
"""Called with the pid of the node, or with the reason why it could not be forked."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """What one zygote imports before it is needed."""

    name: str
    actors: tuple[ActorSpec, ...]
    base_dir: str
    tracing: bool = False
    """Whether its nodes trace requests."""


def become_subreaper() -> None:
    """Have orphaned descendants become our children. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Zygote:
    """One running zygote. Forks are answered in the order asked for, after the preloading."""

    def __init__(
        self,
        image: Image,
        *,
        env: Mapping[str, str],
        cwd: Path,
        log_file: Path,
        on_exit: Callable[[Exit], None],
    ) -> None:
        """Start it. Raises OSError."""
        self.image = image
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                argv = (sys.executable, "-P", "-m", "actors.runtime.zygote", str(theirs.fileno()))
                self.process = LocalProcess.spawn(
                    argv,
                    env=env,
                    cwd=cwd,
                    log=log_file,
                    on_exit=self._exited,
                    pass_fds=(theirs.fileno(),),
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)  # noqa: FBT003 - positional in the standard library
        self._socket = ours
        self._on_exit = on_exit
        self._waiting: deque[Outcome] = deque()
        self._unread = b""
        self._unsent = b""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(ours, self._readable)
        self._send(Preload(image.actors, image.base_dir, image.tracing))

    def fork(
        self, spec: Path, log_file: Path, cwd: Path, env: Mapping[str, str], then: Outcome
    ) -> None:
        """Ask for a node; `then` is called once, later."""
        self._waiting.append(then)
        self._send(Fork(str(spec), str(log_file), str(cwd), dict(env)))

    @property
    def forking(self) -> bool:
        """Whether a node may have been born that we have not been told of yet."""
        return bool(self._waiting)

    def _send(self, order: Preload | Fork) -> None:
        self._unsent += msgspec.json.encode(order) + b"\n"
        self._flush()

    def _flush(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # it has gone; its exit follows
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._loop.add_writer(self._socket, self._flush)
        else:
            self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(data)
        else:
            self._loop.remove_reader(self._socket)

    def _take(self, data: bytes) -> None:
        *lines, self._unread = (self._unread + data).split(b"\n")
        for line in lines:
            self._answered(decode_answer(line))

    def _answered(self, answer: Preloaded | Forked | Unforkable) -> None:
        match answer:
            case Preloaded(problems):
                for problem in problems:
                    # The node's own start will fail on it and be reported in full.
                    log.debug("preload_problem", image=self.image.name, problem=problem)
            case Forked(pid):
                self._waiting.popleft()(pid)
            case Unforkable(reason):
                log.warning("unforkable", image=self.image.name, reason=reason)
                self._waiting.popleft()(reason)

    def _exited(self, ending: Exit) -> None:
        # Answers that it still wrote are true: their nodes live.
        self._drain_answers()
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._on_exit(ending)
        while self._waiting:
            self._waiting.popleft()("the zygote has died")

    def _drain_answers(self) -> None:
        while True:
            try:
                data = self._socket.recv(_READ_BYTES)
            except OSError:
                return
            if not data:
                return
            self._take(data)


def images_of(
    actors: Sequence[tuple[str, tuple[ActorSpec, ...]]], base_dir: Path, *, tracing: bool = False
) -> list[Image]:
    """One image for each name, with every different actor once."""
    by_name: dict[str, dict[tuple[str, bytes], ActorSpec]] = {}
    for name, specs in actors:
        known = by_name.setdefault(name, {})
        for spec in specs:
            known.setdefault((spec.actor, bytes(spec.options)), spec)
    return [
        Image(name=name, actors=tuple(known.values()), base_dir=str(base_dir), tracing=tracing)
        for name, known in by_name.items()
    ]
