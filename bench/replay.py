"""How often a replay on the Transformers engine goes on differently than the stream would have.

    python -m bench.replay                    the demonstration model, 64 prompts of 48 tokens each

Each sequence is run once in the company of all others, then again from a random token on, as after
the loss of its worker: prompt and delivered tokens as the prompt, in other company. The rate is the
share of sequences whose rest is not the same.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.engines.base import Engine, Request
from actors.engines.transformers import TransformersEngine
from actors.engines.transformers.options import TransformersOptions
from actors.messages.sampling import Sampling

CAPITALS = Path(__file__).parent.parent / "topologies" / "models" / "capitals"
VOCABULARY = (300, 900)


def packed(tokens: Sequence[int]) -> bytes:
    return b"".join(token.to_bytes(4, "little") for token in tokens)


async def run(engine: Engine, requests: Sequence[Request]) -> dict[int, list[int]]:
    """The tokens of each request, all run side by side."""
    made: dict[int, list[int]] = {request.id: [] for request in requests}
    for request in requests:
        engine.submit(request)
    left = set(made)
    async for outputs in engine.steps():
        for output in outputs:
            if output.id in left:
                made[output.id] += output.tokens
                if output.finish is not None:
                    left.discard(output.id)
        if not left:
            break
    return made


async def mismatches(
    model: str, *, deterministic: bool, temperature: float, sequences: int, tokens: int
) -> int:
    """How many of the sequences went on differently."""
    options = TransformersOptions(model=model, deterministic=deterministic)
    engine = TransformersEngine(options)
    await engine.start()
    dice = random.Random(1)
    prompts = [
        [dice.randrange(*VOCABULARY) for _ in range(dice.randrange(8, 65))]
        for _ in range(sequences)
    ]

    def sampling(number: int, count: int) -> Sampling:
        return Sampling(count, seed=number, temperature=temperature, ignore_eos=True)

    whole = await run(
        engine,
        [Request(n, packed(prompt), sampling(n, tokens)) for n, prompt in enumerate(prompts)],
    )
    differ = 0
    for begin in range(0, sequences, 5):
        cuts = {n: dice.randrange(1, tokens) for n in range(begin, min(begin + 5, sequences))}
        again = await run(
            engine,
            [
                Request(
                    1000 + n,
                    packed(prompts[n] + whole[n][:cut]),
                    sampling(n, tokens - cut),
                    resumed=cut,
                )
                for n, cut in cuts.items()
            ],
        )
        differ += sum(again[1000 + n] != whole[n][cut:] for n, cut in cuts.items())
    await engine.close()
    return differ


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default=str(CAPITALS))
    parser.add_argument("--sequences", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    for deterministic in (False, True):
        for temperature in (0.0, 1.0):
            count = asyncio.run(
                mismatches(
                    options.model,
                    deterministic=deterministic,
                    temperature=temperature,
                    sequences=options.sequences,
                    tokens=options.tokens,
                )
            )
            print(
                f"deterministic {str(deterministic).lower():<5}  temperature {temperature}  "
                f"{count} of {options.sequences} went on differently"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
