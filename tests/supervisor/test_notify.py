"""What a service manager is told, through a real socket."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import events
from supervisor.notify import Notifier, watchdog_interval_s, without_manager
from tests.supervisor.live import DEADLINE_S, HELLO, environment, supervise


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """The manager's end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(DEADLINE_S)
        yield manager


def told(manager: socket.socket, event: events.Event) -> list[str]:
    notifier = Notifier({"NOTIFY_SOCKET": manager.getsockname()})
    notifier(event)
    notifier.close()
    return manager.recv(4096).decode().split("\n")


def test_serving_is_readiness(manager: socket.socket) -> None:
    assert told(manager, events.Serving(took_s=1.0, urls=("http://h:1",))) == [
        "READY=1",
        "STATUS=serving on http://h:1",
    ]


def test_the_end_is_announced(manager: socket.socket) -> None:
    assert told(manager, events.Stopping()) == ["STOPPING=1", "STATUS=stopping"]


@pytest.mark.parametrize(
    "event",
    [
        events.ChangeDone(what="reload", took_s=1.0),
        events.ChangeFailed(what="reload", reason="no", taken_back=True),
    ],
)
def test_after_a_change_it_is_ready_again(manager: socket.socket, event: events.Event) -> None:
    assert told(manager, event)[0] == "READY=1"


async def test_a_change_is_a_reload_with_the_time_of_its_begin(manager: socket.socket) -> None:
    before = asyncio.get_running_loop().time()

    reloading, since, _ = told(manager, events.ChangeStarted(what="reload", steps=1))

    assert reloading == "RELOADING=1"
    name, _, value = since.partition("=")
    assert name == "MONOTONIC_USEC"
    # uvloop's clock has steps of a millisecond.
    assert int(value) >= int(before * 1e6) - 1000


def test_a_status_is_one_line_whatever_a_log_says(manager: socket.socket) -> None:
    event = events.ChildEnded(id="a/0", run=1, reason="bad\nREADY=1", expected=False, log="")

    assert told(manager, event) == ["STATUS=a/0 ended: bad READY=1"]


async def test_the_watchdog_is_fed_again_and_again_until_closed(manager: socket.socket) -> None:
    environ = {"NOTIFY_SOCKET": manager.getsockname(), "WATCHDOG_USEC": "20000"}
    notifier = Notifier(environ)
    notifier.open()
    for _ in range(3):
        assert await asyncio.to_thread(manager.recv, 64) == b"WATCHDOG=1"
    notifier.close()


@pytest.mark.parametrize(
    ("environ", "interval_s"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "7"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_half_of_what_the_manager_allows(environ: dict[str, str], interval_s: float | None) -> None:
    assert watchdog_interval_s(environ, pid=7) == interval_s


def test_children_are_not_told_of_the_manager() -> None:
    environ = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "HOME": "/h"}

    assert without_manager(environ) == {"HOME": "/h"}


def test_without_a_manager_nothing_happens() -> None:
    notifier = Notifier({})
    notifier(events.Stopping())
    notifier.close()


def test_a_manager_that_has_gone_is_no_error(tmp_path: Path) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    notifier(events.Stopping())
    notifier.close()


@pytest.mark.process
def test_a_real_supervisor_tells_its_manager(
    manager: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.getsockname())
    monkeypatch.setenv("WATCHDOG_USEC", "400000")
    import subprocess
    import sys

    with subprocess.Popen(
        [sys.executable, "-m", "supervisor", "up", str(HELLO)],
        env=environment(tmp_path / "state"),
        stderr=subprocess.DEVNULL,
    ) as process:
        heard: list[str] = []
        while "READY=1" not in heard:
            heard += manager.recv(4096).decode().split("\n")
        assert "WATCHDOG=1" in heard
        assert supervise(tmp_path / "state", "down", "--namespace", "hello").returncode == 0
        while "STOPPING=1" not in heard:
            heard += manager.recv(4096).decode().split("\n")
        assert process.wait(DEADLINE_S) == 0
