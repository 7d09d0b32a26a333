"""`supervise chat`: a topology's engine, and nothing else of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.cli.chat import find_worker
from supervisor.topology import read, read_text

TOPOLOGIES = Path(__file__).parents[3] / "topologies"
DEADLINE_S = 60.0


def test_the_first_actor_with_an_engine_is_meant() -> None:
    topology = read(TOPOLOGIES / "fused.yaml", environ={}).topology

    worker = find_worker(topology)

    assert worker is not None
    assert worker.role == "context"


def test_a_topology_without_an_engine_has_nobody_to_talk_to(tmp_path: Path) -> None:
    text = "children: [{actor: router}]"

    assert find_worker(read_text(text, tmp_path / "x.yaml", environ={}).topology) is None


@pytest.mark.process
def test_piped_lines_are_answered() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "chat", str(TOPOLOGIES / "disagg.yaml")],
        input="What is the capital of France?\nAnd of Chad?\n",
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
    )

    assert done.stdout.splitlines() == [
        "The capital of France is Paris.",
        "The capital of Chad is N'Djamena.",
    ]


@pytest.mark.process
def test_a_file_without_an_engine_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("children: [{actor: router}]")

    done = subprocess.run(
        [sys.executable, "-m", "supervisor", "chat", str(tmp_path / "x.yaml")],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )

    assert done.returncode == 2
    assert "no entry has an engine" in done.stderr
