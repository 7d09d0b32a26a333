"""A process is told from the next one with its number."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from actors.runtime.pids import is_alive, process_started


def test_this_process_is_alive() -> None:
    assert is_alive(os.getpid(), process_started(os.getpid()))


def test_another_start_time_is_another_process() -> None:
    assert not is_alive(os.getpid(), process_started(os.getpid()) + 1)


def test_an_unknown_start_time_is_never_alive() -> None:
    assert not is_alive(os.getpid(), 0)


@pytest.mark.process
def test_a_zombie_counts_as_gone() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        started = process_started(child.pid)
        assert is_alive(child.pid, started)

        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped yet

        assert not is_alive(child.pid, started)
    assert process_started(child.pid) == 0


@pytest.mark.process
def test_a_process_shows_under_the_name_it_takes() -> None:
    code = (
        "from actors.runtime.pids import name_this_process as name\n"
        "name('generation/0-and-more')\n"
        "print(open('/proc/self/comm').read().strip())"
    )

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.strip() == "generation/0-an"
