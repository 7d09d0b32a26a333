"""Workers as ranks that nobody supervises: `mpirun -n N python -m actors.worker NODE.json ...`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.runtime.directory import Directory
from actors.runtime.process import EXIT_CONFIGURATION, ActorSpec, NodeSpec
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun
from tests.actors.engines.tensorrt_llm.fixtures import STANDIN, save_model
from tests.actors.runtime.real import real_stage
from tests.actors.runtime.stage import Watcher
from tests.plane import Plane, running_plane
from tests.service import CAPITALS

pytestmark = pytest.mark.process

CLASSES = {"context": "ContextWorker", "generation": "GenerationWorker"}
START_S = 60.0


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with running_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running


SIMULATED = {"kind": "simulated", "tokenizer": str(CAPITALS)}


def node_file(
    directory: Path, plane: Plane, role: str, namespace: str, engine: object = SIMULATED
) -> str:
    actor = ActorSpec(
        actor=f"actors.worker.actor:{CLASSES[role]}",
        role=role,
        instance=0,
        options=msgspec.Raw(msgspec.json.encode({"model": "test/model", "engine": engine})),
    )
    spec = NodeSpec(
        name=f"{role}/0",
        namespace=namespace,
        base_dir=str(directory),
        nats=plane.nats_settings,
        etcd=plane.etcd_settings,
        actors=(actor,),
    )
    path = directory / f"{role}.json"
    path.write_bytes(msgspec.json.encode(spec))
    return str(path)


def mpirun(ranks: int, *files: str) -> tuple[str, ...]:
    worker = (sys.executable, "-P", "-m", "actors.worker", *files)
    return command(find_mpirun(os.environ), ranks, worker)


def cpu_s(pid: int) -> float:
    """Of a process, so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def lives(pid: int) -> bool:
    """Unlike one that only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_ranks_of_one_program_are_the_workers_of_its_files(
    plane: Plane, tmp_path: Path
) -> None:
    async with real_stage(plane) as stage:
        files = [node_file(tmp_path, plane, role, stage.namespace) for role in CLASSES]
        await stage.host(Watcher, "watcher")
        directory = stage.nodes[0].directory
        async with program(mpirun(2, *files), directory) as process:
            ranks = children_of(process.pid)
            assert len(ranks) == 2
            for pid in ranks:
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(START_S):
                assert await process.wait() == 0


@asynccontextmanager
async def program(
    argv: Sequence[str], directory: Directory, **env: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """An mpirun whose workers, one of each role, are ready inside; it is gone afterwards."""
    process = await asyncio.create_subprocess_exec(*argv, env={**os.environ, **ENVIRONMENT, **env})
    try:
        async with asyncio.timeout(START_S):
            while not all(directory.ready(role) for role in CLASSES):
                assert process.returncode is None, "mpirun has ended"
                await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def standin(generation: str, directory: Path) -> dict[str, str]:
    return {
        "PYTHONPATH": str(STANDIN),
        "TENSORRT_LLM_STANDIN": generation,
        "TENSORRT_LLM_STANDIN_WORLD": str(directory),
    }


def ranks_said(directory: Path) -> list[dict[str, Any]]:
    """What each rank of the stand-in wrote of itself, in the order of the program's ranks."""
    files = sorted(directory.glob("rank-*.json"))
    return [msgspec.json.decode(file.read_bytes()) for file in files]


def tensorrt_llm_files(directory: Path, plane: Plane, namespace: str) -> list[str]:
    """A context server of one rank and a generation server of two."""
    save_model(directory)
    return [
        node_file(
            directory, plane, role, namespace,
            {"kind": "tensorrt_llm", "model": str(directory),
             "arguments": {"tensor_parallel_size": size}},
        )
        for role, size in (("context", 1), ("generation", 2))
    ]  # fmt: skip


@pytest.mark.parametrize("generation", [pytest.param("0.19", marks=pytest.mark.long), "1.2"])
async def test_tensorrt_llm_computes_on_ranks_that_mpi_has_started(
    plane: Plane, tmp_path: Path, generation: str
) -> None:
    """`0.19` needs a switch of the environment on every rank."""
    async with real_stage(plane) as stage:
        files = tensorrt_llm_files(tmp_path, plane, stage.namespace)
        await stage.host(Watcher, "watcher")
        directory = stage.nodes[0].directory
        async with program(
            mpirun(3, *files), directory, **standin(generation, tmp_path)
        ) as running:
            found = ranks_said(tmp_path)
            assert [(one["rank"], one["size"], one["world"]) for one in found] == [
                (0, 1, 3), (0, 2, 3), (1, 2, 3)
            ]  # fmt: skip
            before = [cpu_s(one["pid"]) for one in found]
            await asyncio.sleep(1.0)  # a length of time in which nothing happens
            spent = [cpu_s(one["pid"]) - was for one, was in zip(found, before, strict=True)]
            assert max(spent) < 0.3, "an idle rank burns a core"

            for leader in found[:2]:
                os.kill(leader["pid"], signal.SIGTERM)
            async with asyncio.timeout(START_S):
                assert await running.wait() == 0


async def test_the_loss_of_a_rank_ends_its_program(plane: Plane, tmp_path: Path) -> None:
    async with real_stage(plane) as stage:
        files = tensorrt_llm_files(tmp_path, plane, stage.namespace)
        await stage.host(Watcher, "watcher")
        directory = stage.nodes[0].directory
        async with program(mpirun(3, *files), directory, **standin("1.2", tmp_path)) as running:
            found = ranks_said(tmp_path)
            os.kill(found[2]["pid"], signal.SIGKILL)
            async with asyncio.timeout(START_S):
                assert await running.wait() != 0
        async with asyncio.timeout(START_S):
            while any(lives(one["pid"]) for one in found):  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.05)


def test_a_world_of_the_wrong_size_is_refused(plane: Plane, tmp_path: Path) -> None:
    files = [node_file(tmp_path, plane, role, "wrong-size") for role in CLASSES]

    done = subprocess.run(
        mpirun(3, *files),
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        timeout=START_S,
    )

    assert done.returncode == EXIT_CONFIGURATION
    assert "WORLD_SIZE is 2, but mpirun started 3 ranks" in done.stderr
