from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from actors.runtime.pids import process_started
from supervisor.leftovers import STATE_VARIABLE, end_leftovers, find_unrecorded
from supervisor.runstate import RunningChild

pytestmark = pytest.mark.process

OBEDIENT = "print('up', flush=True); import signal; signal.pause()"
DEAF = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "print('up', flush=True)\n"
    "while True: signal.pause()"
)


@contextmanager
def left_over(
    script: str, *, state: str = "", leads: bool = True
) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        start_new_session=leads,
        env={**os.environ, STATE_VARIABLE: state},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        try:
            yield process
        finally:
            process.kill()


def entry(process: subprocess.Popen[bytes], *, age: int = 0) -> RunningChild:
    started = process_started(process.pid) + age
    return RunningChild(name="old/0", pid=process.pid, pid_started=started, run=1)


def test_a_process_that_still_runs_is_asked_to_end() -> None:
    with left_over(OBEDIENT) as process:
        ended = asyncio.run(end_leftovers([entry(process)]))

        assert [child.pid for child in ended] == [process.pid]
        assert process.wait() == -15


def test_one_that_does_not_listen_is_killed() -> None:
    with left_over(DEAF) as process:
        asyncio.run(end_leftovers([entry(process)], grace_s=0.01))

        assert process.wait() == -9


def test_another_process_with_a_recycled_pid_is_left_alone() -> None:
    with left_over(OBEDIENT) as process:
        assert asyncio.run(end_leftovers([entry(process, age=-1)])) == []

        assert process.poll() is None


def test_those_that_have_gone_are_no_matter() -> None:
    with left_over(OBEDIENT) as process:
        gone = entry(process)
        process.kill()
        process.wait()

        assert asyncio.run(end_leftovers([gone])) == []


def test_what_was_never_written_down_is_found_by_its_mark(tmp_path: Path) -> None:
    mark = str(tmp_path)
    with (
        left_over(OBEDIENT, state=mark) as lost,
        left_over(OBEDIENT, state=mark) as known,
        left_over(OBEDIENT, state=f"{mark}/other"),
        left_over(OBEDIENT, state=mark, leads=False),
    ):
        [found] = find_unrecorded(tmp_path, {known.pid})

        assert (found.pid, found.pid_started) == (lost.pid, process_started(lost.pid))
