"""CPU that the simulated engine spends on a token, without anything around it.

`--running 2048 --tokens 200` shows what happens past the usual sizes.
"""

from __future__ import annotations

import argparse
import time

import uvloop

from actors.engines.base import Request
from actors.engines.simulated import SimulatedEngine, SimulatedOptions
from actors.messages.sampling import Sampling


async def cpu_us_per_token(running: int, tokens: int) -> float:
    """Microseconds of this process for one token, all sequences decoding side by side."""
    options = SimulatedOptions(
        speedup=0, max_running=running, max_waiting=running, blocks=1 << 20, max_step_tokens=1 << 20
    )
    engine = SimulatedEngine(options)
    await engine.start()
    for number in range(running):
        prompt = number.to_bytes(4, "little") * 64
        engine.submit(Request(number, prompt, Sampling(max_tokens=tokens, ignore_eos=True)))
    steps = engine.steps()
    await anext(steps)  # the prompts, which are not what is measured
    produced = 0
    began = time.process_time()
    while engine.busy:
        produced += sum(len(output.tokens) for output in await anext(steps))
    spent = time.process_time() - began
    engine.take_cache_events()
    await engine.close()
    return spent / produced * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--running", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--tokens", type=int, default=500, help="of each sequence")
    arguments = parser.parse_args()
    for running in arguments.running:
        cost = uvloop.run(cpu_us_per_token(running, arguments.tokens))
        print(f"{running:5d} running: {cost:.2f} us of CPU per token")


if __name__ == "__main__":
    main()
