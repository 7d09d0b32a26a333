from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import msgspec
import pytest

from actors.runtime.process import NodeSpec
from supervisor.cli.main import main

SHIPPED = Path(__file__).parents[3] / "topologies"
TENSOR_PARALLEL = str(SHIPPED / "tensor_parallel.yaml")


class BecameError(Exception):
    """Instead of becoming another program."""

    def __init__(self, argv: Sequence[str], environ: dict[str, str]) -> None:
        super().__init__(*argv)
        self.files = argv[4:]
        self.environ = environ


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NATS_SERVER", "nats://127.0.0.1:4222")
    monkeypatch.setenv("ETCD_ENDPOINTS", "http://127.0.0.1:2379")
    for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)

    def become(_path: str, argv: Sequence[str], environ: dict[str, str]) -> NoReturn:
        raise BecameError(argv, environ)

    monkeypatch.setattr(os, "execve", become)


@pytest.mark.usefixtures("servers")
def test_without_mpirun_it_says_how_many_ranks_there_have_to_be(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["ranks", TENSOR_PARALLEL]) == 2
    assert "3 workers, WORLD_SIZE 5: mpirun" in capsys.readouterr().err


def test_embedded_servers_are_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NATS_SERVER", raising=False)

    assert main(["ranks", TENSOR_PARALLEL]) == 2
    assert "set NATS_SERVER" in capsys.readouterr().err


@pytest.mark.usefixtures("servers")
def test_a_rank_becomes_a_worker_that_nobody_supervises_contexts_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    # Of the job that mpirun runs in; it says nothing of this rank.
    monkeypatch.setenv("SLURM_PROCID", "0")

    with pytest.raises(BecameError) as became:
        main(["ranks", TENSOR_PARALLEL, "--set", "children.generation.env={HERE: generation}"])

    specs = [
        msgspec.json.decode(Path(file).read_bytes(), type=NodeSpec) for file in became.value.files
    ]
    assert [spec.name for spec in specs] == ["context/0", "generation/0", "generation/1"]
    assert [spec.link for spec in specs] == [None] * 3
    assert became.value.environ["HERE"] == "generation"
    (actor,) = specs[0].actors
    assert msgspec.json.decode(actor.options)["engine"]["transfer_host"] == "127.0.0.1"
