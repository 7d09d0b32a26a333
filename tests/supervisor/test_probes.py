"""Real servers are asked; so is somebody who only listens."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from actors.runtime.transport.nats import NatsSettings
from supervisor.probes import Prober, Pulse, answers, can_run, etcd_probe, nats_probe
from tests.plane import Plane, running_plane

pytestmark = pytest.mark.process


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    with running_plane(tmp_path_factory.mktemp("plane")) as opened:
        yield opened


async def test_living_servers_answer(plane: Plane) -> None:
    assert await answers(nats_probe(port_of(plane.nats_settings.urls[0])))
    assert await answers(etcd_probe(port_of(plane.etcd_settings.urls[0])))


async def test_stopped_servers_take_the_connection_and_do_not_answer(plane: Plane) -> None:
    with plane.nats.stopped():
        probe = nats_probe(port_of(plane.nats_settings.urls[0]))
        assert not await answers(probe, timeout_s=0.2)
    with plane.etcd.stopped():
        probe = etcd_probe(port_of(plane.etcd_settings.urls[0]))
        assert not await answers(probe, timeout_s=0.2)


async def test_a_port_where_nobody_listens_does_not_answer() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))

        assert not await answers(nats_probe(unused.getsockname()[1]))


async def test_an_answer_of_another_kind_is_none(plane: Plane) -> None:
    assert not await answers(etcd_probe(port_of(plane.nats_settings.urls[0])))


async def test_a_prober_calls_for_each_answer_until_it_is_closed(plane: Plane) -> None:
    answered = asyncio.Event()
    prober = Prober(nats_probe(port_of(plane.nats_settings.urls[0])), answered.set)

    await answered.wait()

    prober.close()


def test_the_settings_are_those_of_a_server_with_one_address(plane: Plane) -> None:
    """What the others take for granted."""
    assert isinstance(plane.nats_settings, NatsSettings)
    assert len(plane.nats_settings.urls) == 1


async def test_a_pulse_is_felt_while_a_process_can_run() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    beats = asyncio.Event()
    pulse = Pulse(process.pid, beats.set)
    await beats.wait()
    assert can_run(process.pid)

    process.send_signal(signal.SIGSTOP)
    await asyncio.to_thread(os.waitid, os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    assert not can_run(process.pid)

    process.kill()
    await process.wait()
    assert not can_run(process.pid)
    pulse.close()
