from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from actors.engines.base import Finish, Handoff, Phase, Request
from actors.engines.transformers import TransformersEngine
from actors.kv.transfer import Ticket
from actors.messages.sampling import Sampling
from tests.actors.engines.transformers.harness import (
    Result,
    packed,
    play,
    read,
    request,
    running,
    settle,
)

Checkpoint = Callable[[str], str]
Engines = tuple[TransformersEngine, TransformersEngine]


def phase(whole: Request, name: Phase, handoff: Handoff | None = None) -> Request:
    return Request(whole.id, whole.prompt, whole.sampling, phase=name, handoff=handoff)


async def hand_over(
    context: TransformersEngine, generation: TransformersEngine, requests: list[Request]
) -> dict[int, Result]:
    """Prefill in one engine, decode in the other; tokens and logprobs of both, joined."""
    prefills = await play(context, [phase(r, "prefill") for r in requests])
    decodes = await play(
        generation,
        [phase(r, "decode", prefills[r.id].handoff) for r in requests if prefills[r.id].handoff],
    )
    for number, result in decodes.items():
        assert result.fetched
        context.release(number)
        before = prefills[number]
        result.tokens[:0] = before.tokens
        result.logprobs[:0] = before.logprobs
        prefills[number] = result
    return prefills


PROMPTS = st.lists(
    st.tuples(st.integers(1, 90), st.sampled_from([0, 16, 37])), min_size=1, max_size=5
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    prompts=PROMPTS,
    max_tokens=st.integers(1, 20),
    temperature=st.sampled_from([0.0, 0.8]),
    split=st.integers(0, 19),
    data=st.data(),
)
def test_any_split_over_two_engines_is_bit_identical_to_one(
    exact_engines: Engines,
    loop: asyncio.Runner,
    prompts: list[tuple[int, int]],
    max_tokens: int,
    temperature: float,
    split: int,
    data: st.DataObject,
) -> None:
    """Over prompts (which share beginnings, so caches are hit), batches, and the token after
    which the work moves: first a whole run in one engine, each request alone; then all together,
    resumed at the split, prefilled in one engine and decoded in the other."""
    first, second = exact_engines
    salt = data.draw(st.integers(0, 200))
    whole = [
        Request(
            number,
            packed(
                [i % 250 for i in range(shared)] + [(salt + i * 7) % 250 for i in range(length)]
            ),
            Sampling(
                max_tokens=max_tokens,
                temperature=temperature,
                seed=number + salt,
                top_p=0.95,
                ignore_eos=True,
                logprobs=2,
            ),
        )
        for number, (length, shared) in enumerate(prompts)
    ]

    async def main() -> None:
        alone = {r.id: (await play(second, [r]))[r.id] for r in whole}
        at = split % max_tokens
        resumed = [
            Request(
                r.id,
                r.prompt + packed(alone[r.id].tokens[:at]),
                msgspec.structs.replace(r.sampling, max_tokens=max_tokens - at),
                resumed=at,
            )
            for r in whole
        ]
        together = await hand_over(first, second, resumed)
        for number, result in together.items():
            assert result.tokens == alone[number].tokens[at:]
            assert result.logprobs == alone[number].logprobs[at:]
            assert result.finish is Finish.LENGTH
        for engine in exact_engines:
            await settle(engine)
            assert engine.load().blocks_used == 0

    loop.run(main())


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_handoff_works_over_each_transport_and_reuses_what_is_there(
    checkpoint: Checkpoint, transport: str
) -> None:
    options: dict[str, Any] = {"model": checkpoint("qwen2"), "transport": transport}
    item = request(0, range(70), max_tokens=9)

    async def main() -> None:
        async with running(**options) as context, running(**options) as generation:
            expected = (await play(context, [item]))[0].tokens
            assert (await hand_over(context, generation, [item]))[0].tokens == expected
            again = await hand_over(context, generation, [item])
            assert again[0].tokens == expected
            # Prefill: a last token must be computed. Decode: all full blocks of 70 tokens.
            assert again[0].cached_tokens == 64

    asyncio.run(main())


async def _handoff(engine: TransformersEngine, item: Request) -> Handoff:
    result = (await play(engine, [phase(item, "prefill")]))[item.id]
    assert result.handoff is not None
    return result.handoff


def _forged(handoff: Handoff, **changes: Any) -> Handoff:
    ticket = Ticket.decode(handoff.ticket)
    of_shard = {name: changes.pop(name) for name in ("secret", "offer") if name in changes}
    (shard,) = ticket.shards
    shards = (msgspec.structs.replace(shard, **of_shard),)
    ticket = msgspec.structs.replace(ticket, shards=shards, **changes)
    return Handoff(handoff.first_token, ticket.encode())


@pytest.mark.parametrize("transport", ["shm", "tcp"])
def test_a_bad_handoff_ends_its_request_alone_and_frees_its_blocks(
    checkpoint: Checkpoint, transport: str
) -> None:
    options: dict[str, Any] = {"model": checkpoint("llama"), "transport": transport}
    item = request(0, range(40))

    async def main() -> None:
        async with running(**options) as context, running(**options) as generation:
            good = await _handoff(context, item)
            geometry = Ticket.decode(good.ticket).geometry
            bad = {
                1: _forged(good, secret=b"x" * 16),
                2: _forged(good, secret=bytes(16)),
                3: _forged(good, offer=2**20),
                4: _forged(good, version=99),
                5: _forged(good, geometry=msgspec.structs.replace(geometry, layers=3)),
                6: _forged(good, tokens=39),
                7: _forged(good, blocks=(1,)),
                8: Handoff(1, b"\xff\x00"),
            }
            results = await play(
                generation,
                [
                    msgspec.structs.replace(phase(item, "decode", handoff), id=number)
                    for number, handoff in bad.items()
                ],
            )
            assert {r.finish for r in results.values()} == {Finish.ERROR}
            sentences = [
                "no longer offered",
                "no longer offered",
                "no longer offered",
                "version 99",
                "layers=3",
                "another length",
                "1 KV blocks for 40 tokens",
                "cannot be read",
            ]
            for result, sentence in zip(results.values(), sentences, strict=True):
                assert sentence in result.error

            # The right ticket still works, once.
            used = await play(generation, [phase(item, "decode", good)])
            assert used[0].finish is Finish.LENGTH
            again = await play(generation, [phase(item, "decode", good)])
            assert "used before" in again[0].error

            context.release(0)
            late = await play(generation, [phase(item, "decode", good)])
            assert "no longer offered" in late[0].error or "used before" in late[0].error
            await settle(context)
            await settle(generation)
            assert context.load().blocks_used == generation.load().blocks_used == 0

    asyncio.run(main())


def test_a_handoff_that_nobody_fetches_is_dropped(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"model": checkpoint("llama")}
        async with (
            running(handoff_ttl_s=0.01, **options) as context,
            running(**options) as generation,
        ):
            item = request(0, range(40))
            handoff = await _handoff(context, item)
            async with asyncio.timeout(10):
                outputs = await anext(aiter(context.steps()))
            assert [(output.id, output.finish) for output in outputs] == [(0, Finish.CANCELLED)]
            assert context.load().blocks_used == 0
            late = await play(generation, [phase(item, "decode", handoff)])
            assert "no longer offered" in late[0].error
            # Its number is free again.
            assert (await play(context, [item]))[0].finish is Finish.LENGTH

    asyncio.run(main())


def test_cancelling_a_held_prefill_frees_it_and_releasing_says_nothing(
    checkpoint: Checkpoint,
) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            results = await play(engine, [phase(request(i, range(20)), "prefill") for i in (1, 2)])
            # Both prompts are the same, so their full block is one.
            assert engine.load().blocks_used == 3
            engine.release(1)
            engine.cancel(2)
            await read(engine, results, until=lambda found: found[2].finish is not None)
            await settle(engine)
            assert results[1].finish is None
            assert results[2].finish is Finish.CANCELLED
            assert engine.load().blocks_used == 0

    asyncio.run(main())


def test_a_prefill_that_ends_at_once_keeps_nothing(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        async with running(model=checkpoint("llama")) as engine:
            item = phase(request(0, range(20), max_tokens=1), "prefill")
            result = (await play(engine, [item]))[0]
            assert (result.finish, result.handoff) == (Finish.LENGTH, None)
            assert engine.load().blocks_used == 0

    asyncio.run(main())


def test_a_decode_may_be_cancelled_while_it_fetches(checkpoint: Checkpoint) -> None:
    async def main() -> None:
        options: dict[str, Any] = {"model": checkpoint("llama"), "transport": "tcp"}
        async with running(**options) as context, running(**options) as generation:
            for number in range(10):
                item = request(number, range(60))
                handoff = await _handoff(context, item)
                generation.submit(phase(item, "decode", handoff))
                generation.cancel(number)
                results = {number: Result()}
                await read(generation, results)
                assert results[number].finish is Finish.CANCELLED
                context.release(number)
            async with asyncio.timeout(10):
                while generation.load().blocks_used or generation.busy:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0)

    asyncio.run(main())
