"""The engine in virtual time: when steps end, and what it does around them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from actors.engines.base import Finish, Output, Request
from actors.engines.simulated import SimulatedEngine, SimulatedOptions, expected_tokens
from actors.engines.simulated.timing import Polynomial
from actors.messages.sampling import Sampling
from bench.virtual_time import jump, run
from tests.actors.engines.contract import prompt_of, request_of, running

# 100 ms a prompt, 10 ms a decode step, 50 ms a handoff: times one can add up in the head.
STEADY = SimulatedOptions(
    prefill_ms=Polynomial(0.0, 0.0, 100.0),
    decode_ms=Polynomial(0.0, 0.0, 10.0),
    handoff_ms=Polynomial(0.0, 0.0, 50.0),
)


def engine_of(**options: Any) -> SimulatedEngine:
    return SimulatedEngine(msgspec.structs.replace(STEADY, **options))


async def timed(engine: SimulatedEngine, *requests: Request) -> list[tuple[float, list[Output]]]:
    """When, in milliseconds since the first submission, each list of outputs came."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    for request in requests:
        engine.submit(request)
    heard: list[tuple[float, list[Output]]] = []
    missing = {request.id for request in requests}
    async for outputs in engine.steps():
        heard.append((round((loop.time() - began) * 1000, 6), list(outputs)))
        missing -= {o.id for o in outputs if o.finish is not None or o.handoff is not None}
        if not missing:
            return heard
    raise AssertionError("the engine ended early")


def test_steps_end_when_the_formula_says() -> None:
    async def test() -> None:
        engine = engine_of()
        await engine.start()
        heard = await timed(engine, request_of(1, prompt_of(10), 4))
        assert [at for at, _ in heard] == [100.0, 110.0, 120.0, 130.0]
        await engine.close()

    run(test())


def test_speedup_shortens_every_step() -> None:
    async def test() -> None:
        engine = engine_of(speedup=10)
        await engine.start()
        heard = await timed(engine, request_of(1, prompt_of(10), 3))
        assert [at for at, _ in heard] == [10.0, 11.0, 12.0]
        await engine.close()

    run(test())


def test_all_sequences_of_a_step_come_in_one_list() -> None:
    async def test() -> None:
        engine = engine_of()
        await engine.start()
        requests = [request_of(n, prompt_of(10, salt=n), 5) for n in range(100)]
        heard = await timed(engine, *requests)
        assert [len(outputs) for _, outputs in heard] == [100] * 5
        await engine.close()

    run(test())


def test_late_reader_does_not_move_the_next_deadline() -> None:
    """A loop that was blocked for 25 ms makes up for the two steps it missed."""

    async def test() -> None:
        engine = engine_of()
        await engine.start()
        loop = asyncio.get_running_loop()
        loop.call_at(0.115, jump, 0.025)
        heard = await timed(engine, request_of(1, prompt_of(10), 6))
        assert [at for at, _ in heard] == [100.0, 110.0, 140.0, 140.0, 140.0, 150.0]
        await engine.close()

    run(test())


def test_long_prompt_is_computed_in_several_steps_beside_decodes() -> None:
    async def test() -> None:
        engine = engine_of(max_step_tokens=16)
        await engine.start()
        heard = await timed(
            engine, request_of(1, prompt_of(10), 4), request_of(2, prompt_of(22, salt=1), 1)
        )
        # Prompt 1 and 6 tokens of prompt 2; then prompt 2's last 16 beside a decode of 1.
        assert [at for at, _ in heard] == [100.0, 210.0, 220.0, 230.0]
        assert {output.id for output in heard[1][1]} == {1, 2}
        await engine.close()

    run(test())


def test_handoff_takes_its_time_without_stopping_others() -> None:
    async def test() -> None:
        context, generation = engine_of(), engine_of()
        await context.start()
        await generation.start()
        request = request_of(2, prompt_of(10), 3)
        prefill = Request(2, request.prompt, request.sampling, phase="prefill")
        (_, (output,)) = (await timed(context, prefill))[0]
        decode = Request(
            2, request.prompt, request.sampling, phase="decode", handoff=output.handoff
        )
        other = request_of(1, prompt_of(5, salt=1), 8)
        heard = await timed(generation, decode, other)
        # It takes 50 ms, and is noticed when the step that is under way then ends.
        assert [at for at, outputs in heard if any(o.fetched for o in outputs)] == [100.0]
        second = [at for at, outputs in heard for o in outputs if o.id == 2 and o.tokens]
        assert second == [110.0, 120.0]
        await context.close()
        await generation.close()

    run(test())


def test_unfetched_handoff_is_dropped_after_its_time() -> None:
    async def test() -> None:
        engine = engine_of(handoff_ttl_s=7.0)
        await engine.start()
        request = Request(1, prompt_of(40), Sampling(max_tokens=5), phase="prefill")
        await timed(engine, request)
        assert engine.load().blocks_used == 3
        assert not engine.busy
        await asyncio.sleep(6.9)
        assert engine.load().blocks_used == 3
        [output] = await anext(aiter(engine.steps()))
        assert output.finish is Finish.CANCELLED
        assert engine.load().blocks_used == 0
        await engine.close()

    run(test())


def test_request_waits_for_blocks_of_handoffs_and_is_not_called_busy() -> None:
    async def test() -> None:
        engine = engine_of(blocks=4)
        async with running(engine) as listener:
            await listener.prefill(
                Request(1, prompt_of(40), Sampling(max_tokens=5), phase="prefill")
            )
            engine.submit(request_of(2, prompt_of(40, salt=1), 3))
            await asyncio.sleep(1)
            assert engine.load().waiting == 1
            busy = [engine.busy]
            engine.release(1)
            busy.append(engine.busy)
            assert busy == [False, True]
            await listener.until(lambda: bool(listener.finishes(2)))

    run(test())


@pytest.mark.parametrize("speedup", [0, 1])
def test_engine_pauses_when_nobody_reads_and_goes_on_when_somebody_does(speedup: int) -> None:
    async def test() -> None:
        engine = engine_of(speedup=speedup, max_unread_steps=3)
        await engine.start()
        engine.submit(request_of(1, prompt_of(10), 20))
        await asyncio.sleep(10)
        assert engine.progress == 3
        assert engine.busy
        tokens: list[int] = []
        async for outputs in engine.steps():
            [output] = outputs
            tokens += output.tokens
            if output.finish is Finish.LENGTH:
                break
        assert tokens == expected_tokens(prompt_of(10), 0, 20, engine.options.words)
        await engine.close()

    run(test())


def test_load_time_passes_before_the_engine_is_ready() -> None:
    async def test() -> None:
        engine = engine_of(load_time_s=12.5, speedup=100)
        await engine.start()
        assert asyncio.get_running_loop().time() == 12.5
        await engine.close()

    run(test())


def test_sequence_ends_at_its_own_end_unless_told_to_ignore_it() -> None:
    async def test() -> None:
        engine = engine_of(eos_every=5)
        async with running(engine) as listener:
            words = engine.options.words
            await listener.run(
                request_of(1, prompt_of(10), 100, ignore_eos=False),
                request_of(2, prompt_of(10), 100),
                request_of(3, prompt_of(10), 100, ignore_eos=False, min_tokens=60),
            )
            expected = expected_tokens(prompt_of(10), 0, 100, words)
            assert listener.finishes(1) == [Finish.STOP]
            assert listener.tokens(1) == expected[: len(listener.tokens(1))]
            assert listener.tokens(2) == expected
            assert len(listener.tokens(3)) >= 60

    run(test())


def test_stop_token_ends_the_sequence_and_is_not_said() -> None:
    async def test() -> None:
        engine = engine_of()
        async with running(engine) as listener:
            words = engine.options.words
            expected = expected_tokens(prompt_of(10), 0, 20, words)
            stop = expected[7]
            await listener.run(request_of(1, prompt_of(10), 20, stop_token_ids=(stop,), logprobs=1))
            assert listener.tokens(1) == expected[: expected.index(stop)]
            assert listener.finishes(1) == [Finish.STOP]
            said = listener.outputs[1][0]
            assert said.logprobs is not None
            assert said.logprobs[0].chosen.token == said.tokens[0]

    run(test())


def test_a_long_step_asks_for_the_time_it_takes_and_a_short_one_does_not() -> None:
    """A watchdog must not take a long prompt, of 3 s here, for a stuck engine."""

    async def test() -> None:
        engine = engine_of(prefill_ms=Polynomial(0.0, 0.0, 3000.0))
        await engine.start()
        assert engine.patience_s == 0.0
        engine.submit(request_of(1, prompt_of(10), 4))
        await asyncio.sleep(1.0)
        assert engine.busy
        assert engine.patience_s == 6.0
        await asyncio.sleep(2.005)
        assert engine.busy
        assert engine.patience_s == pytest.approx(0.02)
        await engine.close()

    run(test())
