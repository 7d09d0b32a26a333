"""Clients whose host is off the network from one moment to the next: no FIN, no RST, nothing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from bench.disturb.stage import Stage, stage
from tests.faults.conftest import PATIENT
from tests.hosts.network import Network, network, why_not

REASON = why_not()
pytestmark = [
    pytest.mark.process,
    pytest.mark.long,
    pytest.mark.skipif(REASON is not None, reason=f"{REASON}"),
]
STREAMS = 8
TOKENS = 8000
"""Two minutes: they do not end by themselves while anybody looks."""
CLIENT_S = 3
PROMPTLY_S = 30.0
INGRESS = f"{{host: 0.0.0.0, port: 8080, reuse_port: true, client_timeout_s: {CLIENT_S}}}"
HOUSE = Path(__file__).parents[2]


async def vanish(service: Stage, net: Network) -> float:
    """How many requests there were before; none is left in bounded time."""
    url = f"http://{net.address(1)}:{service.port}"
    command = (sys.executable, "-m", "tests.hosts.client", url, str(STREAMS), str(TOKENS))
    client = await asyncio.create_subprocess_exec(
        *net.inside(2, *command), stdout=asyncio.subprocess.PIPE, cwd=HOUSE
    )
    try:
        assert client.stdout is not None
        assert await client.stdout.readline() == b"begun\n"
        await asyncio.sleep(1.0)  # for the next heartbeat, which tells the gauges
        gauges = await service.gauges()
        there = sum(one.get("open", 0.0) for one in gauges.values())
        net.cut(2)
        await service.at_rest(deadline_s=PROMPTLY_S)
        return there
    finally:
        client.kill()
        await client.wait()


def test_the_requests_of_a_host_that_vanished_end_within_the_client_timeout(
    tmp_path: Path,
) -> None:
    async def run(net: Network) -> float:
        arguments = (*PATIENT, "--set", f"children.ingress.options={INGRESS}")
        async with stage(tmp_path, *arguments, inside=net.inside(1)) as service:
            return await vanish(service, net)

    with network(2) as net, asyncio.Runner() as runner:
        assert runner.run(run(net)) == STREAMS
