"""A process with a context engine, for tests that need a second one.

    python -m tests.actors.engines.transformers.context_process MODEL TRANSPORT

Reads prompts as lists of token ids in JSON, one a line, prefills each, and prints
`first_token ticket compiler`: the ticket in hexadecimal, and whether torch's compiler has been
imported on the way. Ends with its input.
"""

from __future__ import annotations

import asyncio
import json
import sys

from actors.engines.base import Request
from tests.actors.engines.transformers.harness import play, request, running


async def main() -> None:
    model, transport = sys.argv[1:]
    async with running(model=model, transport=transport, deterministic=True) as engine:
        number = 0
        while line := await asyncio.to_thread(sys.stdin.readline):
            whole = request(number, json.loads(line), max_tokens=10)
            item = Request(number, whole.prompt, whole.sampling, phase="prefill")
            handoff = (await play(engine, [item]))[number].handoff
            assert handoff is not None
            compiler = "torch._dynamo" in sys.modules
            print(handoff.first_token, handoff.ticket.hex(), compiler, flush=True)
            number += 1


if __name__ == "__main__":
    asyncio.run(main())
