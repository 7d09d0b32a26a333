"""The console's commands against one real supervisor, whose child has been killed once."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import msgspec
import pytest

from supervisor.calls import Status
from supervisor.cli.top import Line
from tests.supervisor.live import DEADLINE_S, Live, environment, running, supervise

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the supervisor is Linux's"),
]

TOPOLOGY = """\
children:
  - name: hello
    actor: talker:Talker
    shutdown: 2s
"""
TALKER = """\
import sys
from actors.runtime.actor import Actor

class Talker(Actor):
    async def starting(self):
        print("one line\\nand \\x1b[31manother", file=sys.stderr, flush=True)
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    place = tmp_path_factory.mktemp("hello")
    (place / "talker.py").write_text(TALKER)
    (place / "hello.yaml").write_text(TOPOLOGY)
    with running(place / "state", str(place / "hello.yaml"), "--web") as live:
        live.until("ready")
        os.kill(live.pid("hello/0"), signal.SIGKILL)
        live.until("child_ready", child="hello/0")
        yield live


class Typist:
    """A command on a terminal of its own, and someone who reads and types."""

    def __init__(self, live: Live, *arguments: str) -> None:
        self.ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (24, 80))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "supervisor", *arguments],
            env={**environment(live.base), "TERM": "xterm"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        self.theirs = theirs
        self.seen = ""

    def until(self, *texts: str) -> None:
        """Read until all of them have been written since the last call."""
        deadline = time.monotonic() + DEADLINE_S
        while not all(text in self.seen for text in texts):
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self.ours], [], [], left)
            assert readable, f"not seen: {texts}; but: {self.seen!r}"
            self.seen += os.read(self.ours, 65536).decode()
        self.seen = ""

    def press(self, content: bytes) -> None:
        os.write(self.ours, content)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def top(live: Live) -> Iterator[Typist]:
    typist = Typist(live, "top", "--interval", "0.2")
    yield typist
    typist.close()


def test_status_shows_use_and_the_last_exit(live: Live) -> None:
    shown = supervise(live.base, "status").stdout

    [line] = [line for line in shown.splitlines() if "hello" in line and "restart" in line]
    assert "1 restart" in line
    assert "killed by SIGKILL" in line
    assert "% cpu" in line
    assert " MB" in line
    assert f"page at {live.status().web}" in shown


def test_status_as_json_has_the_counters_that_rates_are_made_of(live: Live) -> None:
    first = live.status()
    done = supervise(live.base, "status", "--json")
    second = msgspec.json.decode(done.stdout, type=Status)

    assert done.returncode == 0
    assert second.clock_s > first.clock_s
    [node] = [row for row in second.children if row.id == "hello/0"]
    assert node.memory_bytes is not None
    assert node.memory_bytes > 5_000_000
    assert node.cpu_s is not None
    root = second.children[0]
    assert root.cpu_s is not None
    assert root.cpu_s > 0


def test_the_last_lines_of_the_run_that_fell_are_in_the_status(live: Live) -> None:
    node = live.child("hello/0")

    assert node.ended_ago_s is not None
    # Beside what the run itself logged, in whatever order.
    said = [line for line in node.tail if not line.startswith("{")]
    assert said[-2:] == ["one line", "and \x1b[31manother"]
    for words in (["status"], ["status", "-v"]):
        shown = supervise(live.base, *words).stdout
        assert "| one line" in shown
        assert "| and ·[31manother" in shown


def test_events_tell_the_past_and_end(live: Live) -> None:
    done = supervise(live.base, "events")

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert any("hello/0" in line and "ended: killed by SIGKILL" in line for line in lines)
    assert "ready again" in lines[-1]


def test_events_as_json_have_their_time(live: Live) -> None:
    done = supervise(live.base, "events", "--json")

    told = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert [event["at"] for event in told] == sorted(event["at"] for event in told)
    assert told[0]["at"] >= live.status().since
    assert {"ChildStarting", "ChildReady", "ChildEnded", "Serving"} <= {
        event["event"] for event in told
    }


def test_logs_as_json_say_whose_line_it_is(live: Live) -> None:
    done = supervise(live.base, "logs", "-n", "2", "--json")

    told = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert {"nats", "etcd", "hello/0"} <= {line["child"] for line in told}
    assert all(line["line"] for line in told)


def test_top_prints_one_frame_into_a_pipe(live: Live) -> None:
    done = supervise(live.base, "top", "--interval", "0.6")

    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    [line] = [line for line in done.stdout.splitlines() if "─ hello/0" in line]
    assert line.split()[2:4] == ["running", "1"]
    assert "CPU%" in done.stdout


def test_top_prints_a_json_object_an_interval(live: Live) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "supervisor", "top", "--json", "--interval", "0.6"],
        env=environment(live.base),
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        lines = [msgspec.json.decode(process.stdout.readline(), type=Line) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        process.wait(DEADLINE_S)

    assert lines[0].at < lines[1].at
    node = next(node for node in lines[1].overview.nodes if node.id == "hello/0")
    assert (node.state, node.restarts) == ("running", 1)
    assert node.cpu_percent is not None
    assert node.actors[0].mailbox == 0


def test_top_on_a_terminal_draws_until_q(top: Typist) -> None:
    before = termios.tcgetattr(top.theirs)
    top.until("\x1b[?1049h", "hello/0", "running", "killed by SIGKILL")
    top.until("\x1b[H", "hello/0")  # and again

    top.press(b"q")

    top.until("\x1b[?1049l")
    assert top.process.wait(DEADLINE_S) == 0
    assert termios.tcgetattr(top.theirs) == before


def test_top_leaves_in_good_order_when_it_is_terminated(top: Typist) -> None:
    top.until("hello/0")

    top.process.terminate()

    top.until("\x1b[?1049l")
    assert top.process.wait(DEADLINE_S) == 128 + signal.SIGTERM


def test_top_gives_the_terminal_back_while_it_is_suspended(top: Typist) -> None:
    before = termios.tcgetattr(top.theirs)
    top.until("hello/0")

    top.process.send_signal(signal.SIGTSTP)
    os.waitid(os.P_PID, top.process.pid, os.WSTOPPED)
    top.until("\x1b[?1049l")
    assert termios.tcgetattr(top.theirs) == before

    top.process.send_signal(signal.SIGCONT)
    top.until("\x1b[?1049h", "hello/0")


def test_top_goes_on_while_the_supervisor_is_silent(live: Live, top: Typist) -> None:
    """Stopped, it answers nobody: the look times out, and what was seen last stays."""
    top.until("hello/0")
    os.kill(live.process.pid, signal.SIGSTOP)
    try:
        top.until("does not answer")
    finally:
        os.kill(live.process.pid, signal.SIGCONT)

    top.until("hello/0", "killed by SIGKILL")


@pytest.mark.parametrize("words", [["status"], ["top"], ["events"], ["top", "--json"]])
def test_without_a_supervisor_it_is_said_what_to_do(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    done = supervise(tmp_path_factory.mktemp("empty"), *words)

    assert done.returncode == 3
    assert "no supervisor runs" in done.stderr
    assert "supervise FILE" in done.stderr


def test_names_for_a_tab_come_from_files(live: Live) -> None:
    namespaces = supervise(live.base, "names", "namespaces").stdout.split()
    children = supervise(live.base, "names", "children").stdout.split()

    assert namespaces == ["hello"]
    assert {"nats", "etcd", "hello/0"} <= set(children)
