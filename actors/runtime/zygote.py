"""A process that has imported what nodes need, and becomes them by forking.

Python's start and imports cost seconds, a fork costs milliseconds. A zygote is told what to
preload and then, one by one, which nodes to become; it does nothing else: no thread, no event
loop, no connection, no CUDA context, so that a fork of it is a clean beginning.

`python -m actors.runtime.zygote FD` speaks JSON lines over the inherited socket FD:

    Preload   import these actors' modules and what they ask for; answered by Preloaded
    Fork      become this node; answered by Forked or Unforkable

The node is not the zygote's child but its parent's (the supervisor is a *subreaper*): a zygote may
die and be replaced, and no node notices. It ends when the other end of the socket closes.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import socket
import sys
from pathlib import Path
from typing import NoReturn

import msgspec

from actors.runtime.pids import name_this_process
from actors.runtime.process import ActorSpec, SpecError, load, main, prepare


class Order(msgspec.Struct, frozen=True, tag=True, tag_field="order"):
    """Base of what is said, in both directions."""


class Preload(Order, frozen=True):
    """Import what these actors need. Repeated imports cost nothing."""

    actors: tuple[ActorSpec, ...]
    base_dir: str
    tracing: bool = False
    """OpenTelemetry, too."""


class Preloaded(Order, frozen=True):
    """Done; `problems` has a sentence for each actor that could not be."""

    problems: tuple[str, ...]


class Fork(Order, frozen=True):
    """Become the node that the file `spec` describes."""

    spec: str
    log: str
    """Appended to; the node's standard output and error."""
    cwd: str
    env: dict[str, str] = {}
    """Set beside the environment the zygote was started with."""


class Forked(Order, frozen=True):
    pid: int


class Unforkable(Order, frozen=True):
    """It cannot be forked from here; start it in a process of its own."""

    reason: str


Said = Preload | Fork
Answer = Preloaded | Forked | Unforkable

encode = msgspec.json.encode
_decoder = msgspec.json.Decoder(Said)
decode_answer = msgspec.json.Decoder(Answer).decode


class Zygote:
    """Serves one socket until its other end closes."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def serve(self) -> None:
        with self._connection.makefile("rb") as lines:
            for line in lines:
                match _decoder.decode(line):
                    case Preload() as order:
                        self._say(self._preload(order))
                    case Fork() as order:
                        self._say(self._fork(order))

    def _say(self, answer: Answer) -> None:
        self._connection.sendall(encode(answer) + b"\n")

    def _preload(self, order: Preload) -> Preloaded:
        # Imports make much and leave little behind: to look through it all again and again would
        # be a seventh of the time that torch and Transformers take.
        gc.disable()
        base_dir = order.base_dir
        if base_dir not in sys.path:
            sys.path.insert(0, base_dir)
        problems = []
        if order.tracing:
            with contextlib.suppress(ImportError):  # the node's own start will say so
                import actors.runtime.tracing.tracer  # noqa: F401, PLC0415 - takes a while
        for spec in order.actors:
            try:
                hosted = load(spec)
                prepare(hosted.actor)
                hosted.actor.preload(hosted.options, Path(base_dir))
            except SpecError as error:
                problems.append(str(error))
            except Exception as error:  # noqa: BLE001 - foreign modules raise what they like
                problems.append(f"{spec.actor}: {type(error).__name__}: {error}")
        # What is here now is shared with every fork; a collection in one must not copy it.
        gc.collect()
        gc.freeze()
        gc.enable()
        return Preloaded(tuple(problems))

    def _fork(self, order: Fork) -> Answer:
        threads = sum(1 for _ in Path("/proc/self/task").iterdir())
        if threads != 1:
            return Unforkable(f"an import has started {threads - 1} threads")
        try:
            read, write = os.pipe()
        except OSError as error:
            return Unforkable(f"cannot be forked: {error.strerror}")
        try:
            between = os.fork()
        except OSError as error:
            os.close(read)
            os.close(write)
            return Unforkable(f"cannot be forked: {error.strerror}")
        if between == 0:
            # Its end hands the node over to the supervisor.
            try:
                node = os.fork()
            except OSError as error:
                # It must not go on as a second zygote.
                os._exit(error.errno or 1)
            if node == 0:
                os.close(read)
                os.close(write)
                self._connection.close()
                _become(order)
            os.write(write, node.to_bytes(8, "little"))
            os._exit(0)
        os.close(write)
        try:
            pid = int.from_bytes(os.read(read, 8), "little")
        finally:
            os.close(read)
            _, status = os.waitpid(between, 0)
        if pid == 0:
            return Unforkable(f"cannot be forked: {os.strerror(os.waitstatus_to_exitcode(status))}")
        return Forked(pid)


def _become(order: Fork) -> NoReturn:
    """Run the node in this process, as if it had been started as one."""
    code = 70
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        output = os.open(order.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        os.environ.update(order.env)
        os.chdir(order.cwd)
        # Two nodes must not draw the same "random" numbers.
        random.seed()
        sys.argv = ["understudy", order.spec]
        code = main([order.spec])
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: what the zygote registered to happen at its end is not ours to do.
        os._exit(code)


def serve(arguments: list[str] | None = None) -> int:
    """Run a zygote on the file descriptor named, until the end; return the code of a wrong call."""
    argv = sys.argv[1:] if arguments is None else arguments
    if len(argv) != 1 or not argv[0].isdecimal():
        print(__doc__, file=sys.stderr)
        return 78
    # Ctrl-C is for the supervisor, and SIGTERM ends a process that holds nothing at once.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name_this_process("zygote")
    Zygote(socket.socket(fileno=int(argv[0]))).serve()
    # At once: there is nothing to tidy up, and everything imported would be torn down.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(serve())
