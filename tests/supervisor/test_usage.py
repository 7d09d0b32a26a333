from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.usage import Sample, Usage, look, look_at_this_process, parse_stat, sum_sessions

NO_DEADLINE = settings(deadline=None)  # the machine may be busy
STAT = (
    "4242 (a) b (c) S 1 77 77 0 -1 4194560 901 0 0 0 250 50 30 20 20 0 1 0 8000 1000000 256 "
    "18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0"
)
SAMPLES = st.lists(
    st.builds(
        Sample,
        session=st.integers(1, 5),
        cpu_s=st.floats(0, 1e6),
        memory_bytes=st.integers(0, 1 << 40),
    )
)


def test_a_stat_is_read_though_the_command_has_parentheses() -> None:
    sample = parse_stat(STAT, ticks_per_s=100, page_bytes=4096)

    assert sample == Sample(session=77, cpu_s=3.5, memory_bytes=256 * 4096)


@pytest.mark.parametrize("text", ["", "4242 (x)", "4242 (x) S one 2"])
def test_what_is_no_stat_is_refused(text: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        parse_stat(text, ticks_per_s=100, page_bytes=4096)


@NO_DEADLINE
@given(samples=SAMPLES, groups=st.sets(st.integers(1, 7)))
def test_each_group_has_what_its_processes_have_and_no_other_is_there(
    samples: list[Sample], groups: set[int]
) -> None:
    found = sum_sessions(samples, groups)

    assert set(found) == groups & {sample.session for sample in samples}
    for group, usage in found.items():
        own = [sample for sample in samples if sample.session == group]
        assert usage.memory_bytes == sum(sample.memory_bytes for sample in own)
        assert usage.cpu_s == pytest.approx(sum(sample.cpu_s for sample in own))


def test_the_group_of_a_real_process_counts_what_it_has_started_too() -> None:
    script = (
        "import os, subprocess, sys\n"
        "other = subprocess.Popen(['sh', '-c', 'echo; sleep 60'], stdout=subprocess.PIPE)\n"
        "other.stdout.readline()\n"  # while it becomes what it is, it may have no memory at all
        "print(other.pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        try:
            readable, _, _ = select.select([process.stdout], [], [], 10)
            assert readable
            other = int(process.stdout.readline())
            # In this order: it may still grow, and must not seem to be two for that.
            alone, helper = (
                parse_stat(
                    _stat(pid),
                    ticks_per_s=os.sysconf("SC_CLK_TCK"),
                    page_bytes=os.sysconf("SC_PAGE_SIZE"),
                ).memory_bytes
                for pid in (process.pid, other)
            )
            found = look({process.pid})[process.pid]
        finally:
            os.killpg(process.pid, signal.SIGKILL)

    assert helper > 0
    assert found.memory_bytes >= alone + helper > 1_000_000


def test_a_group_without_a_process_is_left_out() -> None:
    assert look({1 << 30}) == {}


def test_this_process_uses_something() -> None:
    own = look_at_this_process()

    assert isinstance(own, Usage)
    assert own.cpu_s > 0
    assert own.memory_bytes > 1_000_000


def _stat(pid: int) -> str:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123 - as the code reads it
        return file.read()
