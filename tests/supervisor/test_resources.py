"""Limits, imposed on real processes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.resources import LimitError, Limits, impose

pytestmark = pytest.mark.process

THREADED = """
import sys, threading
waiting = threading.Event()
threading.Thread(target=waiting.wait, daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
try:
    bytearray(300 << 20)
    print("allocated", flush=True)
except MemoryError:
    print("refused", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def process() -> Iterator[subprocess.Popen[str]]:
    """One that has a second thread; it allocates 300 MiB when it is sent a line."""
    with subprocess.Popen(
        [sys.executable, "-c", THREADED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def allocation(process: subprocess.Popen[str]) -> str:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_every_thread_gets_the_processors_and_the_priority(
    process: subprocess.Popen[str],
) -> None:
    cpu = min(os.sched_getaffinity(0))

    impose(Limits(nice=7, cpus=(cpu,)), process.pid)

    threads = [int(task.name) for task in Path(f"/proc/{process.pid}/task").iterdir()]
    assert len(threads) == 2
    assert {frozenset(os.sched_getaffinity(thread)) for thread in threads} == {frozenset({cpu})}
    assert {os.getpriority(os.PRIO_PROCESS, thread) for thread in threads} == {7}


def test_memory_above_the_limit_is_refused_to_the_process(process: subprocess.Popen[str]) -> None:
    impose(Limits(memory_bytes=200 << 20), process.pid)

    assert allocation(process) == "refused"


def test_without_a_limit_the_same_allocation_succeeds(process: subprocess.Popen[str]) -> None:
    impose(Limits(), process.pid)

    assert allocation(process) == "allocated"


def test_open_files_are_raised_to_the_hard_limit(process: subprocess.Popen[str]) -> None:
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (256, hard))

    impose(Limits(), process.pid)

    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE) == (hard, hard)


def test_open_files_can_be_set(process: subprocess.Popen[str]) -> None:
    impose(Limits(open_files=321), process.pid)

    assert resource.prlimit(process.pid, resource.RLIMIT_NOFILE)[0] == 321


def test_what_the_system_refuses_is_told(process: subprocess.Popen[str]) -> None:
    with pytest.raises(LimitError, match="cannot set cpus: Invalid argument"):
        impose(Limits(cpus=(4095,)), process.pid)


def test_a_process_that_has_gone_is_no_error(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()

    impose(Limits(nice=5, memory_bytes=1 << 30), process.pid)
