"""Workers as ranks that nobody supervises: `mpirun -n N python -m actors.worker NODE.json ...`."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from actors.runtime.process import EXIT_CONFIGURATION, ActorSpec, NodeSpec
from supervisor.launchers.mpirun import ENVIRONMENT, command, find_mpirun
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


def node_file(directory: Path, plane: Plane, role: str, namespace: str) -> str:
    engine = {"kind": "simulated", "tokenizer": str(CAPITALS)}
    actor = ActorSpec(
        actor=f"actors.worker.actor:{CLASSES[role]}",
        role=role,
        instance=0,
        options=msgspec.Raw(msgspec.json.encode({"model": "test/simulated", "engine": engine})),
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


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


async def test_ranks_of_one_program_are_the_workers_of_its_files(
    plane: Plane, tmp_path: Path
) -> None:
    async with real_stage(plane) as stage:
        files = [node_file(tmp_path, plane, role, stage.namespace) for role in CLASSES]
        await stage.host(Watcher, "watcher")
        directory = stage.nodes[0].directory
        process = await asyncio.create_subprocess_exec(
            *mpirun(2, *files), env={**os.environ, **ENVIRONMENT}
        )
        try:
            async with asyncio.timeout(START_S):
                while not all(directory.ready(role) for role in CLASSES):  # noqa: ASYNC110 - another process's state
                    await asyncio.sleep(0.05)
            ranks = children_of(process.pid)
            assert len(ranks) == 2
            for pid in ranks:
                os.kill(pid, signal.SIGTERM)
            async with asyncio.timeout(START_S):
                assert await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()


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
