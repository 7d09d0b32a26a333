"""The same seed is the same run: else no failure could be shown again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.run import run

SEEDS = (3, 7, 12)
HOUSE = Path(__file__).parent.parent.parent


def digests_in_another_process(hash_seed: int) -> list[str]:
    script = (
        "from tests.simulation.run import run; "
        f"print(*[run(seed).digest for seed in {SEEDS!r}], sep='\\n')"
    )
    environ = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=HOUSE,
        env=environ,
    )
    return done.stdout.split()


@pytest.mark.process
def test_a_seed_gives_the_same_trace_in_every_process_whatever_its_hash_seed() -> None:
    here = [run(seed).digest for seed in SEEDS]

    assert digests_in_another_process(1) == here
    assert digests_in_another_process(2) == here


def test_different_seeds_give_different_traces() -> None:
    assert len({run(seed).digest for seed in SEEDS}) == len(SEEDS)


def test_a_run_that_is_watched_is_the_same_run() -> None:
    assert run(3, verbose=True).digest == run(3).digest
