"""The real roles on the simulated engine, changed under streaming load: no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import aiohttp
import pytest

from tests.supervisor.live import Live, processes_of, running, supervise

pytestmark = [pytest.mark.process, pytest.mark.slow, pytest.mark.deadline(240)]

CLIENTS = 6
TOKENS = 12
ENOUGH = 20
"""Requests; with fewer the run would say nothing."""
MODELS = Path(__file__).parents[3] / "topologies" / "models" / "capitals"
TOPOLOGY = """
namespace: served
supervision: {{intensity: 30, period: 60s}}
x-engine: &engine {{kind: simulated, tokenizer: "{models}", speedup: 4, blocks: 4096}}
children:
  - {{actor: context, options: {{model: simulated, engine: *engine}}}}
  - {{actor: generation, replicas: 2, options: {{model: simulated, engine: *engine}}}}
  - {{actor: router, options: {{strategy: round_robin}}}}
  - {{actor: preprocessor}}
  - {{actor: ingress, replicas: 2, options: {{port: {port}, reuse_port: true}}}}
"""


class Load:
    """Clients that stream completions, each on a connection of its own, one after the other."""

    def __init__(self, url: str) -> None:
        self.failures: list[str] = []
        self.served = 0
        self._url = url
        self._enough = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.create_task(self._client()) for _ in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._enough.set()
        await asyncio.gather(*self._clients)

    async def _client(self) -> None:
        while not self._enough.is_set():
            try:
                connector = aiohttp.TCPConnector(force_close=True)
                async with aiohttp.ClientSession(connector=connector) as session:
                    await self._stream(session)
                self.served += 1
            except (aiohttp.ClientError, OSError) as error:
                self.failures.append(repr(error))

    async def _stream(self, session: aiohttp.ClientSession) -> None:
        asked = {
            "model": "simulated",
            "prompt": "What is the capital of France?",
            "max_tokens": TOKENS,
            "stream": True,
        }
        async with session.post(f"{self._url}/v1/completions", json=asked) as response:
            body = await response.text()
        if response.status != 200 or not body.endswith("data: [DONE]\n\n") or '"error"' in body:
            self.failures.append(f"{response.status}: {body[-300:]}")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, str]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = tmp_path_factory.mktemp("served")
    path = place / "served.yaml"
    path.write_text(TOPOLOGY.format(models=MODELS, port=port))
    with running(place / "state", str(path)) as live:
        live.until("ready")
        yield live, f"http://127.0.0.1:{port}"
    assert processes_of(place / "state") == []


@contextlib.asynccontextmanager
async def loaded(url: str) -> AsyncIterator[Load]:
    """Under load; at the end every request must have been served."""
    async with Load(url) as load:
        yield load
    assert load.failures == []
    assert load.served >= ENOUGH


@pytest.mark.parametrize("entry", ["generation", "context", "router", "preprocessor", "ingress"])
async def test_a_rolling_restart_fails_no_request(service: tuple[Live, str], entry: str) -> None:
    live, url = service
    before = {row.id: row.pid for row in live.status().children}

    async with loaded(url):
        done = await asyncio.to_thread(supervise, live.base, "restart", "--rolling", entry)
        assert done.returncode == 0, done.stderr

    after = {row.id: row.pid for row in live.status().children}
    assert after.keys() == before.keys()
    renewed = {id_ for id_ in after if after[id_] != before[id_]}
    assert renewed == {id_ for id_ in after if id_.rpartition("/")[0] == entry}
