"""Processes that live and do not work, and those that only look like it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actors.runtime.address import Address
from actors.runtime.errors import NoSuchActor
from actors.runtime.message import Message
from actors.runtime.node import Node
from actors.runtime.registry.etcd import EtcdRegistry
from actors.runtime.transport.nats import NatsTransport
from tests.supervisor.faulty import write_faulty
from tests.supervisor.live import DEADLINE_S, Live, processes_of, running

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's"),
]
FAULTY = Address("faulty")


class Block(Message, frozen=True):
    seconds: float


class Stand(Message, frozen=True):
    patience_s: float


class WhoAreYou(Message, frozen=True):
    pass


@contextlib.asynccontextmanager
async def a_node_beside(live: Live, name: str = "faulty/0") -> AsyncIterator[Node]:
    spec = live.node_spec(name, "faulty")
    node = Node(
        "tester",
        spec.namespace,
        NatsTransport(spec.nats, "tester"),
        EtcdRegistry(spec.etcd, spec.namespace),
    )
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def tell(live: Live, message: Message, to: Address = FAULTY) -> None:
    async def send() -> None:
        async with a_node_beside(live) as node:
            node.tell(to, message)
            await node.transport.flush(DEADLINE_S)

    asyncio.run(send())


def ask_pid(live: Live, of: Address = FAULTY) -> int:
    async def send() -> int:
        async with a_node_beside(live) as node, asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await node.ask(of, WhoAreYou(), reply=int, timeout_s=DEADLINE_S)
                except NoSuchActor:
                    await asyncio.sleep(0.05)  # it is just connecting to a new NATS

    return asyncio.run(send())


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A supervisor with one faulty actor; tests leave it running."""
    base = tmp_path_factory.mktemp("state")
    topology = write_faulty(tmp_path_factory.mktemp("topology"))
    with running(base, str(topology)) as live:
        live.until("ready")
        yield live
    assert processes_of(base) == []


def replaced(live: Live, child: str, old: int) -> str:
    """Wait for the child to be killed and replaced; the reason given everywhere."""
    reason: str = live.until("child_failed", child=child)["reason"]
    live.until("child_ready", child=child)
    row = live.child(child)
    assert row.pid != old
    assert row.last_exit == reason
    return reason


def test_a_stopped_node_is_killed_and_replaced(faulty: Live) -> None:
    old = faulty.pid("faulty/0")

    os.kill(old, signal.SIGSTOP)

    assert replaced(faulty, "faulty/0", old) == "hung: no heartbeat for 1.5 s"
    assert ask_pid(faulty) == faulty.pid("faulty/0")


def test_a_blocked_event_loop_is_seen_although_the_process_runs(faulty: Live) -> None:
    old = faulty.pid("faulty/0")

    tell(faulty, Block(60.0))

    assert replaced(faulty, "faulty/0", old) == "hung: no heartbeat for 1.5 s"


def test_work_that_does_not_get_on_is_seen_although_the_loop_turns(faulty: Live) -> None:
    old = faulty.pid("faulty/0")

    tell(faulty, Stand(0.0))

    assert replaced(faulty, "faulty/0", old).startswith("stuck: no progress for 1.")


def test_a_step_is_given_the_patience_it_asks_for(faulty: Live) -> None:
    old = faulty.pid("faulty/0")

    tell(faulty, Stand(2.5))

    assert replaced(faulty, "faulty/0", old).startswith("stuck: no progress for 2.")


@pytest.mark.parametrize("helper", ["supervisor/guard", "zygote/own"])
def test_a_stopped_helper_is_killed_and_replaced(faulty: Live, helper: str) -> None:
    old = faulty.pid(helper)

    os.kill(old, signal.SIGSTOP)

    assert replaced(faulty, helper, old) == "hung: no sign of life for 1.5 s"


@pytest.mark.parametrize("server", ["nats", "etcd"])
def test_a_stopped_server_is_killed_and_replaced(faulty: Live, server: str) -> None:
    old, node = faulty.pid(server), faulty.child("faulty/0")

    os.kill(old, signal.SIGSTOP)

    assert replaced(faulty, server, old).startswith("hung: no answer for 5.")
    assert ask_pid(faulty) == node.pid
    assert faulty.child("faulty/0").actors[0].incarnation == node.actors[0].incarnation


def test_a_supervisor_that_was_stopped_itself_blames_nobody(faulty: Live) -> None:
    """Longer than any limit, and its children beat into its sockets all the while."""
    before = {row.id: row.pid for row in faulty.status().children}
    os.kill(faulty.process.pid, signal.SIGSTOP)
    try:
        time.sleep(6.0)
    finally:
        os.kill(faulty.process.pid, signal.SIGCONT)

    time.sleep(2.0)  # nothing is to happen, and nothing tells of that

    assert {row.id: row.pid for row in faulty.status().children} == before


def test_a_start_that_takes_longer_than_every_limit_is_left_alone(tmp_path: Path) -> None:
    """It is over when we say so, after a sibling that hung has been seen and replaced."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    topology = write_faulty(
        tmp_path,
        head="supervision: {strategy: one_for_one}",
        more=f"  - {{name: slow, actor: 'faulty:Faulty', options: {{fifo: '{fifo}'}}}}\n",
    )
    with running(tmp_path / "state", str(topology)) as live:
        slow = live.until("child_starting", child="slow/0")["pid"]
        for _ in range(2):
            os.kill(live.pid("faulty/0"), signal.SIGSTOP)
            live.until("child_failed", child="faulty/0")
            live.until("child_ready", child="faulty/0")

        assert live.pid("slow/0") == slow
        fifo.write_text("go")

        live.until("child_ready", child="slow/0")
        assert live.pid("slow/0") == slow
    assert processes_of(tmp_path / "state") == []


def test_with_the_watchdog_off_nothing_is_expected(tmp_path: Path) -> None:
    """The sibling that is watched shows that the time for a verdict has passed."""
    topology = write_faulty(
        tmp_path,
        entry="watchdog: off",
        more="  - {name: watched, actor: 'faulty:Faulty'}\n",
    )
    with running(tmp_path / "state", str(topology)) as live:
        live.until("ready")
        free, watched = live.pid("faulty/0"), live.pid("watched/0")
        os.kill(free, signal.SIGSTOP)
        os.kill(watched, signal.SIGSTOP)

        live.until("child_ready", child="watched/0")

        assert live.pid("faulty/0") == free
        os.kill(free, signal.SIGCONT)


STALLING = """
namespace: faulty
children:
  - name: aggregated
    actor: aggregated
    drain: 0s
    options:
      model: simulated
      engine:
        kind: simulated
        faults: [{{do: stall, step: 3, marker: '{marker}'}}]
"""


def test_a_stalled_engine_is_killed_and_replaced(tmp_path: Path) -> None:
    from actors.messages.key import RequestKey
    from actors.messages.sampling import Sampling
    from actors.messages.work import Generate

    topology = tmp_path / "stalling.yaml"
    topology.write_text(STALLING.format(marker=tmp_path / "stalled"))
    with running(tmp_path / "state", str(topology)) as live:
        live.until("ready")
        old = live.pid("aggregated/0")

        async def submit() -> None:
            async with a_node_beside(live, "aggregated/0") as node:
                key = RequestKey(Address("ingress", 0, 1), 1, 1)
                work = Generate(key, "r1", bytes(range(16)), Sampling(max_tokens=100))
                node.tell(Address("aggregated"), work)
                await node.transport.flush(DEADLINE_S)

        asyncio.run(submit())

        assert replaced(live, "aggregated/0", old).startswith("stuck: no progress for 1.")
        assert (tmp_path / "stalled").exists()
    assert processes_of(tmp_path / "state") == []
