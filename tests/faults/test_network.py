"""Single processes cut off from NATS or from etcd, by a relay between them and the server."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from bench.disturb.stage import Stage, stage
from tests.faults.conftest import PATIENT, answered, judged, streams
from tests.faults.relay import Relay
from tests.plane import Plane, running_plane

pytestmark = [pytest.mark.process, pytest.mark.long]

BRIEFLY_S = 2.0
"""Shorter than a worker that does not answer is waited for (3 s)."""
LONG_S = 8.0
"""Longer than that, and than NATS's own pings (4 s)."""
BEYOND_THE_LEASE_S = 15.0
REGISTERED_S = 5.0
"""From etcd's being back to the node's being known again, at most."""
NODES = ["context/0", "context/1", "generation/0", "generation/1", "router/0", "preprocessor/0"]


class Network:
    """A service behind two relays."""

    def __init__(self, service: Stage, nats: Relay, etcd: Relay) -> None:
        self.service = service
        self.nats = nats
        self.etcd = etcd


@asynccontextmanager
async def network(directory: Path, plane: Plane) -> AsyncIterator[Network]:
    relays = []
    for url in (plane.nats_settings.urls[0], plane.etcd_settings.urls[0]):
        where = urlsplit(url)
        assert where.hostname is not None
        assert where.port is not None
        relay = Relay(where.hostname, where.port)
        await relay.start()
        relays.append(relay)
    nats, etcd = relays
    token = plane.nats_settings.token
    arguments = (
        *("--set", f"nats=nats://{token}@127.0.0.1:{nats.port}"),
        *("--set", f"etcd=http://127.0.0.1:{etcd.port}"),
    )
    try:
        async with stage(directory, *PATIENT, *arguments) as service:
            yield Network(service, nats, etcd)
    finally:
        for relay in relays:
            await relay.stop()


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.Runner, Network]]:
    directory = tmp_path_factory.mktemp("network")
    with running_plane(directory) as plane, asyncio.Runner() as runner:
        manager = network(directory, plane)
        one = runner.run(manager.__aenter__())
        try:
            yield runner, one
        finally:
            runner.run(manager.__aexit__(None, None, None))


async def cut_off(net: Network, relay: Relay, name: str, last_s: float, tokens: int) -> list[str]:
    """What was wrong with streams while one process was out of reach."""
    pid = net.service.pid(name)
    held = relay.held
    made = await streams(net.service, 8, tokens)
    await relay.cut(pid)
    await asyncio.sleep(last_s)
    await relay.heal(pid)
    wrong = await judged(made)
    await net.service.at_rest()
    assert relay.held > held, "nothing was held up, so nothing was tried"
    # Whose lease has run out is registered again a moment after etcd is back.
    after = await (answered_again if relay is net.etcd else answered)(net.service)
    return wrong + ([after] if after else [])


async def answered_again(service: Stage) -> str:
    """`answered`, by a client that comes again while it is told to."""
    async with asyncio.timeout(REGISTERED_S):
        while (after := await answered(service)).startswith("refused: 503"):  # noqa: ASYNC110 - nobody tells a client
            await asyncio.sleep(0.05)
    return after


@pytest.mark.parametrize("last_s", [BRIEFLY_S, LONG_S])
@pytest.mark.parametrize("name", ["context/0", "generation/0"])
def test_a_worker_that_nats_does_not_reach_costs_no_token(
    net: tuple[asyncio.Runner, Network], name: str, last_s: float
) -> None:
    runner, one = net

    assert runner.run(cut_off(one, one.nats, name, last_s, tokens=300)) == []


@pytest.mark.parametrize("name", ["router/0", "preprocessor/0"])
def test_running_streams_do_not_notice_that_nats_does_not_reach_a_router(
    net: tuple[asyncio.Runner, Network], name: str
) -> None:
    runner, one = net

    assert runner.run(cut_off(one, one.nats, name, LONG_S, tokens=400)) == []


def test_an_ingress_that_nats_does_not_reach_for_a_while_goes_on_with_its_streams(
    net: tuple[asyncio.Runner, Network],
) -> None:
    runner, one = net

    assert runner.run(cut_off(one, one.nats, "ingress/0", BRIEFLY_S, tokens=300)) == []


@pytest.mark.parametrize("name", ["generation/0", "router/0", "ingress/0"])
def test_a_node_that_etcd_does_not_reach_beyond_its_lease_serves_on_and_is_registered_again(
    net: tuple[asyncio.Runner, Network], name: str
) -> None:
    runner, one = net
    pid = one.service.pid(name)

    assert runner.run(cut_off(one, one.etcd, name, BEYOND_THE_LEASE_S, tokens=400)) == []

    # To be out of reach of etcd is no reason to be restarted.
    assert one.service.pid(name) == pid


def test_processes_cut_off_one_by_one_and_let_back_in_another_order_leave_no_wrong_token(
    net: tuple[asyncio.Runner, Network],
) -> None:
    runner, one = net

    async def swizzle() -> list[str]:
        dice = random.Random(4)
        chosen = dice.sample(NODES, 4)
        made = await streams(one.service, 12, 400)
        for name in chosen:
            await one.nats.cut(one.service.pid(name))
            await asyncio.sleep(dice.uniform(0.0, 0.8))
        back = dice.sample(chosen, len(chosen))
        for name in back:
            await one.nats.heal(one.service.pid(name))
            await asyncio.sleep(dice.uniform(0.0, 0.8))
        wrong = await judged(made)
        await one.service.at_rest()
        after = await answered(one.service)
        # Four of six are away at once: an explicit end is allowed, a wrong token or none is not.
        return [what for what in wrong if not what.startswith(("error:", "refused:"))] + (
            [after] if after else []
        )

    assert runner.run(swizzle()) == []
