"""What a long prompt costs on its way to an engine, and its next turn.

    python -m bench.long_prompts                 prompts of 1k, 10k and 100k tokens, JSON

A conversation of twenty messages fills the prompt; its next turn repeats it and adds two messages.
`tokenise` is the tokenizer alone on the whole text, in this process; `cached` the same through the
prompt cache, when it has seen the turn before. `TTFT` is by HTTP, from a service in processes of
its own whose engine takes no time, of the first turn and of the next one; `overhead` is TTFT of the
first turn over `tokenise` alone. Medians; `hash` are the router's block hashes, new and known.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from actors.kv.hashing import PrefixHasher
from actors.text.prompt_cache import PromptCache
from actors.text.tokenizer import Tokenizer
from bench.serving import Served, serving

ROOT = Path(__file__).parents[1]
TOPOLOGY = ROOT / "topologies" / "simulated.yaml"
MODEL = ROOT / "topologies" / "models" / "capitals"
RESULTS = Path(__file__).parent / "results"
MESSAGES = 20
WORDS = ["what", "is", "the", "capital", "of", "France", "and", "why", "Paris", "not", "Lyon?", "A"]
SETS = (
    *(
        f"children.{role}.options.engine.{option}"
        for role in ("context", "generation")
        for option in ("speedup=0", "max_context_tokens=200000")
    ),
)


class Row(msgspec.Struct):
    """One length; milliseconds, medians."""

    tokens: int
    characters: int
    render_ms: float
    tokenise_ms: float
    cached_ms: float
    hash_ms: float
    hash_known_ms: float
    ttft_first_ms: float
    ttft_next_ms: float
    overhead_ms: float


def conversation(rng: random.Random, tokens: int, tokenizer: Tokenizer) -> list[dict[str, str]]:
    """Messages of about so many tokens together."""
    sample = " ".join(rng.choices(WORDS, k=1000))
    per_word = len(tokenizer.encode(sample, add_special_tokens=False)) / 4 / 1000
    words = int(tokens / MESSAGES / per_word)
    return [message(rng, number, words) for number in range(MESSAGES - 1)]


def message(rng: random.Random, number: int, words: int) -> dict[str, str]:
    role = "assistant" if number % 2 else "user"
    return {"role": role, "content": " ".join(rng.choices(WORDS, k=words))}


def timed(work: Callable[[], Any]) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


async def ttft_ms(
    served: Served, session: aiohttp.ClientSession, messages: list[dict[str, str]]
) -> float:
    """To the first event of a stream."""
    body = msgspec.json.encode(
        {"model": served.model, "messages": messages, "max_tokens": 4, "stream": True}
    )
    headers = {"content-type": "application/json"}
    began = time.perf_counter()
    url = f"{served.url}/v1/chat/completions"
    async with session.post(url, data=body, headers=headers) as response:
        response.raise_for_status()
        while b'"content":"' not in await response.content.readline():
            if response.content.at_eof():
                raise SystemExit("the stream ended without a token")
        took_ms = (time.perf_counter() - began) * 1000
        await response.read()
    return took_ms


async def measure(
    served: Served, session: aiohttp.ClientSession, tokenizer: Tokenizer, tokens: int, rounds: int
) -> Row:
    """One length."""
    seen = [await one_round(served, session, tokenizer, tokens, number) for number in range(rounds)]
    return Row(*(statistics.median(values) for values in zip(*seen, strict=True)))


async def one_round(
    served: Served, session: aiohttp.ClientSession, tokenizer: Tokenizer, tokens: int, number: int
) -> tuple[Any, ...]:
    """What stands in a row, measured once."""
    rng = random.Random(f"{tokens}/{number}")
    first = conversation(rng, tokens, tokenizer)
    following = [*first, message(rng, 1, 50), message(rng, 0, 50)]
    render = tokenizer.chat_templates.render
    text = render(following)
    cache, hasher = PromptCache(tokenizer, 64_000_000), PrefixHasher()
    cache.encode(render(first))
    ids = tokenizer.encode(text, add_special_tokens=False)
    plain_ms = timed(lambda: tokenizer.encode(text, add_special_tokens=False))
    cached_ms = timed(lambda: cache.encode(text))
    assert cache.encode(text) == ids
    first_ms = await ttft_ms(served, session, first)
    next_ms = await ttft_ms(served, session, following)
    return (
        len(ids) // 4,
        len(text),
        timed(lambda: render(following)),
        plain_ms,
        cached_ms,
        timed(lambda: hasher.hashes(ids, 16)),
        timed(lambda: hasher.hashes(ids, 16)),
        first_ms,
        next_ms,
        first_ms - plain_ms,
    )


async def run(lengths: list[int], rounds: int) -> list[Row]:
    tokenizer = Tokenizer.load(MODEL)
    rows = []
    with tempfile.TemporaryDirectory() as state:
        async with (
            serving(TOPOLOGY, Path(state), SETS) as served,
            aiohttp.ClientSession() as session,
        ):
            await measure(served, session, tokenizer, 1000, 1)
            for tokens in lengths:
                row = await measure(served, session, tokenizer, tokens, rounds)
                rows.append(row)
                print(
                    "  ".join(
                        f"{name.removesuffix('_ms')} {value:.2f}"
                        if isinstance(value, float)
                        else f"{name} {value}"
                        for name, value in msgspec.structs.asdict(row).items()
                    ),
                    flush=True,
                )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tokens", nargs="+", type=int, default=[1_000, 10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", default=RESULTS / "long_prompts.json")
    arguments = parser.parse_args()
    rows = asyncio.run(run(arguments.tokens, arguments.rounds))
    arguments.json.write_bytes(msgspec.json.format(msgspec.json.encode(rows)) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
