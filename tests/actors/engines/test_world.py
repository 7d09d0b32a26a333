"""Where a process stands in its MPI program; each test asks a process of its own, as MPI starts
once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

ENDING = """
import os, sys, time
from actors.engines.world import ending_with
with ending_with([int(sys.argv[1]), 0], 7):
    print("watching", flush=True)
    time.sleep(60)
"""
LEAVING = """
import sys
from actors.engines.world import ending_with
with ending_with([int(sys.argv[1])], 7):
    pass
"""


def python(code: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_mpirun_and_a_library_of_two_installations_are_found_out() -> None:
    """A rank that its library takes for a program of its own."""
    done = python("from actors.engines import world; world.place()", OMPI_COMM_WORLD_SIZE="2")

    assert "EngineFailed: 2 ranks were started, and Open MPI" in done.stderr
    assert "of two installations" in done.stderr


def test_a_rank_ends_with_its_neighbour_and_not_by_its_own_leaving() -> None:
    with subprocess.Popen(["sleep", "60"]) as neighbour:
        assert python(LEAVING, str(neighbour.pid)).returncode == 0
        argv = [sys.executable, "-c", ENDING, str(neighbour.pid)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as rank:
            assert rank.stdout is not None
            assert rank.stdout.readline() == b"watching\n"
            neighbour.send_signal(signal.SIGKILL)
            assert rank.wait(30) == 7
