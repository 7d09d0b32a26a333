"""A guard with real processes: someone who holds the lock, and children that only wait."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from actors.runtime.pids import process_started
from supervisor import guard
from supervisor.guard import Guard, command_line
from supervisor.layout import Layout
from supervisor.runstate import (
    Lock,
    RunningChild,
    RunState,
    is_held,
    read_holder,
    this_process,
    write_run_state,
)

pytestmark = pytest.mark.process
DEADLINE_S = 30.0
WAIT = "print('up', flush=True); import signal; signal.pause()"
HOLD = (
    """
import sys
from pathlib import Path
from supervisor.runstate import Lock, this_process
lock = Lock(Path(sys.argv[1]), this_process('blue', Path('blue.yaml')))
"""
    + WAIT
)


@contextmanager
def started(script: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            process.kill()


def entry(name: str, process: subprocess.Popen[bytes], *, server: bool = False) -> RunningChild:
    started_at = process_started(process.pid)
    return RunningChild(name=name, pid=process.pid, pid_started=started_at, run=1, server=server)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    made = Layout(tmp_path / "blue", {})
    made.create()
    return made


def test_what_nobody_takes_over_is_ended_and_no_trace_is_left(layout: Layout) -> None:
    with ExitStack() as stack:
        holder = stack.enter_context(started(HOLD, str(layout.lock)))
        node = stack.enter_context(started(WAIT))
        server = stack.enter_context(started(WAIT))
        children = (entry("nats", server, server=True), entry("a/0", node))
        state = RunState(supervisor=this_process("blue", Path("t")), children=children)
        write_run_state(layout.run, state)
        command = command_line(layout, 0.2, 0.2)
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            holder.kill()
            _, said = process.communicate(timeout=DEADLINE_S)

        assert process.returncode == 0
        assert (node.wait(DEADLINE_S), server.wait(DEADLINE_S)) == (-15, -15)
        assert f"supervisor {os.getpid()} is gone; ended nats, a/0" in said
    assert not layout.run.exists()
    assert read_holder(layout.lock) is None


def test_nodes_that_leave_by_themselves_are_not_waited_for_any_longer(layout: Layout) -> None:
    """The time they would have is far beyond the test's."""
    with ExitStack() as stack:
        holder = stack.enter_context(started(HOLD, str(layout.lock)))
        node = stack.enter_context(started(WAIT))
        server = stack.enter_context(started(WAIT))
        children = (entry("nats", server, server=True), entry("a/0", node))
        state = RunState(supervisor=this_process("blue", Path("t")), children=children)
        write_run_state(layout.run, state)
        with subprocess.Popen(command_line(layout, 0.1, 3600.0)) as process:
            holder.kill()
            node.terminate()
            node.wait(DEADLINE_S)

            assert process.wait(DEADLINE_S) == 0
        assert server.wait(DEADLINE_S) == -15


async def test_a_successor_is_seen_at_once_and_outlived_like_the_first(layout: Layout) -> None:
    with started(HOLD, str(layout.lock)) as first:
        watching = Guard(layout, orphan_timeout_s=0.0, leave_s=0.0)
        first.kill()
        first.wait()
        await asyncio.to_thread(watching._outlive_holder)
        waiting = asyncio.create_task(asyncio.to_thread(watching._is_succeeded, DEADLINE_S))

        with started(HOLD, str(layout.lock)) as second:
            assert await waiting

            outliving = asyncio.create_task(asyncio.to_thread(watching._outlive_holder))
            second.kill()
            second.wait()
            await outliving


async def test_without_a_successor_the_wait_ends(layout: Layout) -> None:
    layout.lock.touch()

    assert not await asyncio.to_thread(
        Guard(layout, orphan_timeout_s=0, leave_s=0)._is_succeeded, 0
    )


def test_nothing_is_ended_when_somebody_else_has_the_lock_after_all(layout: Layout) -> None:
    """A successor that came between the last look and the end."""
    lock = Lock(layout.lock, this_process("blue", Path("blue.yaml")))
    with started(WAIT) as node:
        state = RunState(supervisor=this_process("blue", Path("t")), children=(entry("a/0", node),))
        write_run_state(layout.run, state)

        assert not Guard(layout, orphan_timeout_s=0, leave_s=0)._clear_up()

        assert node.poll() is None
    assert is_held(layout.lock)
    lock.release()


def test_wrong_arguments_are_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert guard.main(["only"]) == guard.EXIT_USAGE
    assert "STATE_DIR" in capsys.readouterr().err
