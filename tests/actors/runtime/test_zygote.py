"""The zygote: imports once, and becomes nodes by forking."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.runtime.process import ActorSpec
from actors.runtime.zygote import (
    Answer,
    Fork,
    Forked,
    Preload,
    Preloaded,
    Unforkable,
    decode_answer,
    encode,
)

pytestmark = pytest.mark.process
DEADLINE_S = 30.0


class Talk:
    """A zygote, and the socket to it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "actors.runtime.zygote", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        ours.settimeout(DEADLINE_S)
        self.socket = ours
        self._lines = ours.makefile("rb")

    def ask(self, order: Preload | Fork) -> Answer:
        self.socket.sendall(encode(order) + b"\n")
        answer: Answer = decode_answer(self._lines.readline())
        return answer

    def preload(self, *actors: str) -> Answer:
        specs = tuple(ActorSpec(actor=actor, role="a", instance=0) for actor in actors)
        return self.ask(Preload(specs, str(self.directory)))

    def fork(self) -> Answer:
        """Fork a node whose specification is missing: it says so in its log and ends."""
        log = str(self.directory / "log")
        return self.ask(Fork(str(self.directory / "none.json"), log, str(self.directory)))

    def close(self) -> None:
        self._lines.close()
        self.socket.close()


@pytest.fixture
def zygote(tmp_path: Path) -> Iterator[Talk]:
    talk = Talk(tmp_path)
    yield talk
    talk.close()
    talk.process.wait(DEADLINE_S)


def write_actor(directory: Path, head: str = "") -> str:
    (directory / "mine.py").write_text(
        f"{head}\nfrom actors.runtime.actor import Actor\nclass Mine(Actor): pass\n"
    )
    return "mine:Mine"


def ended(pid: int) -> None:
    """Wait until a process that is not our child has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    with os.fdopen(pidfd, "rb", buffering=0) as watched:
        assert select.select([watched], [], [], DEADLINE_S)[0]


def test_a_fork_runs_the_node_and_writes_to_its_log(zygote: Talk) -> None:
    zygote.preload(write_actor(zygote.directory))

    answer = zygote.fork()

    assert isinstance(answer, Forked)
    ended(answer.pid)
    assert "none.json: [Errno 2]" in (zygote.directory / "log").read_text()


def test_what_was_preloaded_is_imported_once_for_all_forks(zygote: Talk) -> None:
    count = zygote.directory / "imports"
    zygote.preload(write_actor(zygote.directory, f"open({str(count)!r}, 'a').write('x')"))

    for _ in range(3):
        answer = zygote.fork()
        assert isinstance(answer, Forked)
        ended(answer.pid)

    assert count.read_text() == "x"


def test_an_actor_that_cannot_be_imported_is_told_and_stops_nothing(zygote: Talk) -> None:
    answer = zygote.preload("missing.module:Nothing")

    assert isinstance(answer, Preloaded)
    assert "missing.module:Nothing" in answer.problems[0]
    assert isinstance(zygote.fork(), Forked)


@pytest.mark.parametrize("who", ["the zygote", "the process between"])
def test_a_fork_that_the_system_refuses_is_told_and_the_next_may_be_granted(
    zygote: Talk, who: str
) -> None:
    refused = zygote.directory / "refused"
    refused.touch()
    count = "==" if who == "the zygote" else "!="
    head = f"""
import os
fork, zygote = os.fork, os.getpid()
def may_fork():
    if os.getpid() {count} zygote and os.path.exists({str(refused)!r}):
        raise BlockingIOError(11, os.strerror(11))
    return fork()
os.fork = may_fork
"""
    zygote.preload(write_actor(zygote.directory, head))

    answer = zygote.fork()

    assert answer == Unforkable(f"cannot be forked: {os.strerror(11)}")
    refused.unlink()
    assert isinstance(zygote.fork(), Forked)


def test_an_import_that_starts_a_thread_makes_it_unforkable(zygote: Talk) -> None:
    start = "threading.Thread(target=threading.Event().wait, daemon=True).start()"
    zygote.preload(write_actor(zygote.directory, f"import threading\n{start}"))

    answer = zygote.fork()

    assert isinstance(answer, Unforkable)
    assert "1 threads" in answer.reason


def test_it_ends_when_the_socket_closes_and_its_nodes_live_on(tmp_path: Path) -> None:
    talk = Talk(tmp_path)
    answer = talk.preload()
    assert isinstance(answer, Preloaded)

    talk.close()

    assert talk.process.wait(DEADLINE_S) == 0


def test_a_killed_zygote_takes_no_fork_with_it(zygote: Talk) -> None:
    fifo = zygote.directory / "wait"
    os.mkfifo(fifo)
    zygote.preload()
    # The specification is a pipe: the node waits for it to be written.
    answer = zygote.ask(Fork(str(fifo), str(zygote.directory / "log"), str(zygote.directory)))
    assert isinstance(answer, Forked)

    zygote.process.send_signal(signal.SIGKILL)
    zygote.process.wait(DEADLINE_S)
    fifo.write_text("not json")

    ended(answer.pid)
    assert "JSON is malformed" in (zygote.directory / "log").read_text()
