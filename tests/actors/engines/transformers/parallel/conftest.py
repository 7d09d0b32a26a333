"""A program of MPI with engines in it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from actors.engines.base import Request
from supervisor.launchers.mpirun import ENVIRONMENT, find_mpirun
from tests.actors.engines.transformers.harness import Result
from tests.actors.engines.transformers.parallel.ranks import Orders

START_S = 180.0


class Server:
    """An engine in other processes, spoken to by its leader's socket."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._file = stream.makefile("rwb")

    def play(self, requests: Iterable[Request], release: Sequence[int] = ()) -> dict[int, Result]:
        self._file.write(msgspec.json.encode(Orders(list(requests), list(release))) + b"\n")
        self._file.flush()
        answer = self._file.readline()
        assert answer, "the server has gone"
        return msgspec.msgpack.decode(base64.b64decode(answer), type=dict[int, Result])

    def close(self) -> None:
        self._file.close()
        self._stream.close()


class Program:
    """The running mpirun."""

    def __init__(self, process: subprocess.Popen[bytes], servers: list[Server]) -> None:
        self.process = process
        self.servers = servers


@contextmanager
def mpi_program(
    directory: Path, *sizes: int, ends_ill: bool = False, **options: Any
) -> Iterator[Program]:
    """Servers of so many ranks each; they end when the block does, and well unless `ends_ill`."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    argv = [find_mpirun(os.environ), "--oversubscribe", "-n", str(sum(sizes)), sys.executable, "-m"]
    argv += ["tests.actors.engines.transformers.parallel.ranks", str(directory)]
    argv += [json.dumps({"kind": "transformers", "kv_memory": "1MiB", **options})]
    log = directory / "log"
    env = {**os.environ, **ENVIRONMENT}
    with ExitStack() as opened:
        output = opened.enter_context(log.open("wb"))
        process = opened.enter_context(
            subprocess.Popen([*argv, *map(str, sizes)], stdout=output, stderr=output, env=env)
        )
        opened.callback(process.kill)
        servers = [connect(directory / str(number), process, log) for number in range(len(sizes))]
        yield Program(process, servers)
        for server in servers:
            server.close()
        code = process.wait(START_S)
        assert (code != 0) == ends_ill, log.read_text()


def connect(path: Path, process: subprocess.Popen[bytes], log: Path) -> Server:
    deadline = time.monotonic() + START_S
    while True:
        stream = socket.socket(socket.AF_UNIX)
        try:
            stream.connect(str(path))
        except OSError:
            stream.close()
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the engine did not come up in time"
            time.sleep(0.02)
        else:
            return Server(stream)
