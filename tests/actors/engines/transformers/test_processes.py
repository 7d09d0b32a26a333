from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from actors.engines.base import Finish, Handoff, Request
from tests.actors.engines.transformers.harness import play, request, running, settle

pytestmark = pytest.mark.process


class Context:
    """An engine in another process."""

    def __init__(self, model: str, transport: str) -> None:
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.actors.engines.transformers.context_process",
                model,
                transport,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def prefill(self, prompt: list[int]) -> Handoff:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(prompt) + "\n")
        self.process.stdin.flush()
        first_token, ticket, compiler = self.process.stdout.readline().split()
        assert compiler == "False", "a third of the start for nothing; see lean.py"
        return Handoff(int(first_token), bytes.fromhex(ticket))


@contextmanager
def context_process(model: str, transport: str) -> Iterator[Context]:
    context = Context(model, transport)
    try:
        yield context
    finally:
        context.process.communicate()


def decode(number: int, prompt: list[int], handoff: Handoff) -> Request:
    whole = request(number, prompt, max_tokens=10)
    return Request(number, whole.prompt, whole.sampling, phase="decode", handoff=handoff)


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_another_process_computes_the_prompt_until_it_is_killed(
    checkpoint: Callable[[str], str], transport: str
) -> None:
    prompts = [[(i * k) % 250 for i in range(n)] for k, n in ((3, 1), (5, 40), (7, 64))]
    options: dict[str, Any] = {
        "model": checkpoint("qwen3"),
        "transport": transport,
        "deterministic": True,
    }

    async def main(context: Context) -> None:
        async with running(**options) as engine:
            for number, prompt in enumerate(prompts):
                expected = (await play(engine, [request(number, prompt, max_tokens=10)]))[number]
                handoff = await asyncio.to_thread(context.prefill, prompt)
                result = (await play(engine, [decode(number, prompt, handoff)]))[number]
                assert result.fetched
                assert [handoff.first_token, *result.tokens] == expected.tokens

            handoff = await asyncio.to_thread(context.prefill, prompts[1])
            context.process.kill()
            context.process.wait()
            lost, alive = decode(7, prompts[1], handoff), request(8, prompts[2])
            results = await play(engine, [lost, alive])
            assert results[7].finish is Finish.ERROR
            assert "cannot be reached" in results[7].error
            assert results[8].finish is Finish.LENGTH
            await settle(engine)
            assert engine.load().blocks_used == 0

    with context_process(checkpoint("qwen3"), transport) as context:
        asyncio.run(main(context))


def test_options_are_read_without_loading_torch_or_transformers() -> None:
    program = (
        "import sys, msgspec\n"
        "from actors.engines.transformers import TransformersEngine, TransformersOptions\n"
        'text = b\'{"kind": "transformers", "model": "m"}\'\n'
        "TransformersEngine(msgspec.json.decode(text, type=TransformersOptions))\n"
        "assert not {'torch', 'transformers'} & sys.modules.keys()\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True)
