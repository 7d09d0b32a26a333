from __future__ import annotations

import importlib.metadata
from pathlib import Path

import pytest

from supervisor.launchers.mpirun import NoMpirunError, find_mpirun


@pytest.fixture
def elsewhere(tmp_path: Path) -> str:
    """A PATH with an mpirun of another installation."""
    other = tmp_path / "mpirun"
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    return str(tmp_path)


def no_package(_name: str) -> None:
    raise importlib.metadata.PackageNotFoundError


def test_mpirun_is_that_of_the_library_that_ranks_load(elsewhere: str) -> None:
    assert Path(find_mpirun({"PATH": elsewhere})).parent != Path(elsewhere)


def test_without_the_package_it_is_the_one_on_the_path(
    elsewhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "files", no_package)

    assert find_mpirun({"PATH": elsewhere}) == f"{elsewhere}/mpirun"
    with pytest.raises(NoMpirunError, match="understudy\\[mpi\\]"):
        find_mpirun({"PATH": "/nowhere"})
