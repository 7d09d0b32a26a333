"""What nodes are given of the machine, as they see it themselves: forked and spawned alike."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import msgspec
import pytest

from actors.runtime.address import Address
from actors.runtime.message import Message
from actors.runtime.node import Node
from actors.runtime.process import NodeSpec
from actors.runtime.registry.etcd import EtcdRegistry
from actors.runtime.transport.nats import NatsTransport
from tests.supervisor.live import DEADLINE_S, Live, processes_of, running, supervise

pytestmark = [pytest.mark.process, pytest.mark.deadline(90)]

TELLER = """
import os, resource
from actors.runtime.actor import Actor, handler
from actors.runtime.message import Message

class Given(Message, frozen=True):
    pass

class Teller(Actor):
    @handler
    def given(self, message: Given) -> dict[str, object]:
        return {
            "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "cpus": sorted(os.sched_getaffinity(0)),
            "nice": os.getpriority(os.PRIO_PROCESS, 0),
            "memory": resource.getrlimit(resource.RLIMIT_DATA)[0],
            "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "colour": os.environ.get("COLOUR"),
            "cwd": os.getcwd(),
        }
"""
TOPOLOGY = """
namespace: given
children:
  - {name: big, actor: "teller:Teller", replicas: 2, gpus: 2, nice: 4, cpus: CPU, memory: 8GiB,
     open_files: 300, fork: FORK}
  - {name: small, actor: "teller:Teller", gpus: 0, fork: FORK}
  - {name: plain, actor: "teller:Teller", env: {COLOUR: blue}, cwd: work}
"""


class Given(Message, frozen=True):
    pass


class View(msgspec.Struct):
    gpus: str | None
    cpus: list[int]
    nice: int
    memory: int
    open_files: int
    colour: str | None
    cwd: str


def write(directory: Path, *, fork: bool) -> Path:
    (directory / "teller.py").write_text(TELLER)
    (directory / "work").mkdir()
    cpu = min(os.sched_getaffinity(0))
    path = directory / "given.yaml"
    path.write_text(TOPOLOGY.replace("CPU", str(cpu)).replace("FORK", str(fork).lower()))
    return path


async def views(live: Live, *names: str) -> list[View]:
    file = live.layout("given").node_spec("big/0")
    spec = msgspec.json.decode(file.read_bytes(), type=NodeSpec)
    transport, registry = NatsTransport(spec.nats, "tester"), EtcdRegistry(spec.etcd, "given")
    node = Node("tester", "given", transport, registry)
    await node.start()
    try:
        return [
            await node.ask(Address.parse(name), Given(), reply=View, timeout_s=DEADLINE_S)
            for name in names
        ]
    finally:
        await node.stop()


@pytest.mark.parametrize("fork", [True, False])
async def test_nodes_have_what_the_topology_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, fork: bool
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    with running(tmp_path / "state", str(write(tmp_path, fork=fork))) as live:
        await asyncio.to_thread(live.until, "ready")

        first, second, small, plain = await views(live, "big/0", "big/1", "small/0", "plain/0")

        assert (first.gpus, second.gpus, small.gpus, plain.gpus) == ("0,1", "2,3", "", "0,1,2,3")
        cpu = min(os.sched_getaffinity(0))
        assert (first.cpus, first.nice, first.memory) == ([cpu], 4, 8 << 30)
        assert first.open_files == 300
        assert plain.open_files > 300
        assert (plain.colour, plain.cwd) == ("blue", str(tmp_path / "work"))

        os.kill(live.pid("big/1"), signal.SIGKILL)
        await asyncio.to_thread(live.until, "child_failed", child="big/1")
        await asyncio.to_thread(live.until, "child_ready", child="big/1")
        [again] = await views(live, "big/1")
        assert again.gpus == "2,3"
    assert processes_of(tmp_path / "state") == []


def test_more_gpus_than_there_are_is_told_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")

    done = supervise(tmp_path / "state", str(write(tmp_path, fork=True)))

    assert done.returncode == 2
    assert "expected at most 3 GPUs in all" in done.stderr
    assert "found 4" in done.stderr
    assert processes_of(tmp_path / "state") == []
