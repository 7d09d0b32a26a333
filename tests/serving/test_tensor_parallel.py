"""Workers split over ranks of MPI, all under one mpirun, in real processes."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.serving.conftest import SLOW_S, Service, serving

pytestmark = [pytest.mark.process, pytest.mark.long]

FRANCE = "What is the capital of France?"
PARIS = "The capital of France is Paris."
LIST = "List ten capitals."
WORKERS = ("context/0", "generation/0", "generation/1")


def ranks_of(mpirun: int) -> list[int]:
    """The pids of the processes that an mpirun has started, in the order of their ranks."""
    children = Path(f"/proc/{mpirun}/task/{mpirun}/children").read_text().split()
    return sorted((int(pid) for pid in children), key=_rank)


def _rank(pid: int) -> int:
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    found = [item for item in environment if item.startswith(b"OMPI_COMM_WORLD_RANK=")]
    return int(found[0].partition(b"=")[2])


def pid_of(service: Service, child: str) -> int:
    (row,) = [row for row in service.live.status().children if row.id == child]
    assert row.pid is not None
    return row.pid


def test_five_ranks_serve_and_the_loss_of_one_is_a_pause_for_its_server(tmp_path: Path) -> None:
    with serving(tmp_path, "tensor_parallel.yaml", slow=WORKERS) as service:
        assert service.ask(FRANCE) == PARIS
        expected = service.ask(LIST)
        ranks = ranks_of(pid_of(service, "world/servers"))
        leaders = [pid_of(service, name) for name in WORKERS]
        assert (len(ranks), leaders) == (5, [ranks[0], ranks[1], ranks[3]])

        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(service.ask, LIST) for _ in range(8)]
            os.kill(ranks[2], signal.SIGKILL)  # it follows generation/0
            assert [answer.result() for answer in answers] == [expected] * 8

        service.live.until("child_ready", within_s=SLOW_S, child="generation/0")
        assert [pid_of(service, name) for name in WORKERS[::2]] == [ranks[0], ranks[3]]
        own = ranks_of(pid_of(service, "generation/0"))
        assert len(own) == 2
        assert [service.ask(FRANCE) for _ in range(4)] == [PARIS] * 4

    assert not any(Path(f"/proc/{pid}").exists() for pid in (*ranks, *own))
