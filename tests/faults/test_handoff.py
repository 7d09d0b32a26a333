"""Workers of a real model killed at every point of a handoff: before the blocks are on offer,
before they are fetched, in the middle of copying, and after it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from bench.disturb.stage import Stage, stage
from tests.faults import gates
from tests.service import CAPITALS

pytestmark = pytest.mark.process

DEADLINE_S = 60.0
MODEL = "capitals"
QUESTION = "List ten capitals."
TOPOLOGY = """
namespace: handoff
supervision: {{intensity: 1000, period: 60s}}
x-engine: &engine
  kind: transformers
  model: {model}
  transport: {transport}
  handoff_ttl_s: 5
  deterministic: true
  block_tokens: 4
  prefix_cache: false
x-worker: &worker
  backoff: {{initial: 100ms, max: 1s, reset_after: 1s}}
  options: {{model: capitals, engine: *engine}}
children:
  - {{name: context, actor: "gates:Context", <<: *worker}}
  - {{name: generation, actor: "gates:Generation", <<: *worker}}
  - {{actor: router, options: {{strategy: round_robin}}}}
  - {{actor: preprocessor}}
  - {{actor: ingress, options: {{port: 8080}}}}
"""


class Handoff:
    """The service, and the gates in it."""

    def __init__(self, service: Stage, directory: Path) -> None:
        self.service = service
        self.client = AsyncOpenAI(
            base_url=f"http://127.0.0.1:{service.port}/v1",
            api_key="unused",
            max_retries=0,
            timeout=DEADLINE_S,
        )
        self._directory = directory

    async def answer(self) -> AsyncIterator[str]:
        """The pieces of one, greedy."""
        stream = await self.client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            stream=True,
        )
        async for chunk in stream:
            if chunk.choices:
                yield chunk.choices[0].delta.content or ""

    async def whole_answer(self) -> str:
        return "".join([piece async for piece in self.answer()])

    def close(self, name: str) -> None:
        (self._directory / f"close-{name}").touch()

    def open(self, name: str) -> None:
        (self._directory / f"close-{name}").unlink(missing_ok=True)
        (self._directory / f"at-{name}").unlink(missing_ok=True)

    async def somebody_waits(self, name: str) -> None:
        """Return when a worker stands at a closed gate."""
        async with asyncio.timeout(DEADLINE_S):
            while not (self._directory / f"at-{name}").exists():  # noqa: ASYNC110 - its sign is a file
                await asyncio.sleep(0.005)

    async def struck(self, victim: str, gate: str) -> tuple[str, str]:
        """(what it says undisturbed, what it says when the victim is killed as one stands there);
        then nothing is left of either."""
        expected = await self.whole_answer()
        pid = self.service.pid(f"{victim}/0")
        self.close(gate)
        try:
            asking = asyncio.ensure_future(self.whole_answer())
            await self.somebody_waits(gate)
            os.kill(pid, signal.SIGKILL)
        finally:
            self.open(gate)
        found = await asking
        await self.service.at_rest()
        assert self.service.pid(f"{victim}/0") != pid
        return expected, found

    async def struck_after(self, victim: str) -> tuple[str, str]:
        """The same with the kill when some tokens have come."""
        expected = await self.whole_answer()
        text = ""
        async for piece in self.answer():
            text += piece
            if text.count("\n") == 2 and piece.endswith("\n"):
                os.kill(self.service.pid(f"{victim}/0"), signal.SIGKILL)
        await self.service.at_rest()
        return expected, text


@pytest.fixture(scope="module", params=["tcp", pytest.param("shm", marks=pytest.mark.long)])
def handoff(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[asyncio.Runner, Handoff]]:
    directory = tmp_path_factory.mktemp("handoff")
    shutil.copy(gates.__file__, directory / "gates.py")
    topology = directory / "handoff.yaml"
    topology.write_text(TOPOLOGY.format(model=CAPITALS, transport=request.param))
    with asyncio.Runner() as runner:
        manager = stage(directory, topology=topology, namespace="handoff")
        service = runner.run(manager.__aenter__())
        try:
            one = Handoff(service, directory)
            yield runner, one
            runner.run(one.client.close())
        finally:
            runner.run(manager.__aexit__(None, None, None))


@pytest.mark.parametrize(
    ("gate", "victim"),
    [
        ("offer", "context"),
        pytest.param("pull", "context", marks=pytest.mark.long),
        pytest.param("pull", "generation", marks=pytest.mark.long),
        ("copy", "context"),
        ("copy", "generation"),
    ],
)
def test_a_kill_before_or_while_blocks_are_copied_costs_no_token_and_leaves_no_block(
    handoff: tuple[asyncio.Runner, Handoff], gate: str, victim: str
) -> None:
    runner, service = handoff

    expected, found = runner.run(service.struck(victim, gate))

    assert found == expected


@pytest.mark.long
@pytest.mark.parametrize("victim", ["context", "generation"])
def test_a_kill_after_the_handoff_costs_no_token_and_leaves_no_block(
    handoff: tuple[asyncio.Runner, Handoff], victim: str
) -> None:
    runner, service = handoff

    expected, found = runner.run(service.struck_after(victim))

    assert found == expected
