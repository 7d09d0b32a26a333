from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bench import interpreter
from bench.interpreter import Facts, choose

OURS = Facts("/ours", "3.11", able=True, seconds=1.0)


def test_another_build_is_taken_when_it_is_a_good_deal_faster() -> None:
    faster = Facts("/faster", "3.11", able=True, seconds=0.8)
    slower = Facts("/slower", "3.11", able=True, seconds=0.9)

    assert choose(OURS, [OURS, slower, faster]) == faster


def test_our_own_stays_when_others_are_about_as_fast() -> None:
    assert choose(OURS, [Facts("/other", "3.11", able=True, seconds=0.97)]) == OURS


@pytest.mark.parametrize(
    "other",
    [Facts("/other", "3.12", able=True, seconds=0.5), Facts("/x", "3.11", able=False, seconds=0.5)],
    ids=["another version", "one that makes no environment"],
)
def test_what_will_not_do_is_not_taken_however_fast(other: Facts) -> None:
    assert choose(OURS, [OURS, other]) == OURS


def test_where_our_own_makes_no_environment_a_slower_one_is_taken() -> None:
    unable = OURS._replace(able=False)
    slower = Facts("/slower", "3.11", able=True, seconds=1.5)

    assert choose(unable, [unable, slower]) == slower


def test_what_is_no_python_is_passed_over(tmp_path: Path) -> None:
    broken = tmp_path / "python3"
    broken.write_text("#!/bin/sh\necho no\n")
    broken.chmod(0o755)

    assert interpreter.ask(str(broken)) is None


@pytest.mark.process
def test_it_prints_a_python_that_runs() -> None:
    said = subprocess.run(
        [sys.executable, interpreter.__file__], capture_output=True, check=True, text=True
    )

    version = subprocess.run(
        [said.stdout.strip(), "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        check=True,
        text=True,
    )
    assert version.stdout.strip() == str(sys.version_info[:2])
