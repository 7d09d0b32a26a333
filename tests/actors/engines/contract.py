"""What every engine must do, as tests. An engine joins by a subclass with a `make` fixture.

Nothing here knows how long a step takes: tests wait for outputs, or for a state that must come.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import pytest

from actors.engines.base import Engine, Finish, Handoff, Info, Output, Request, RequestRefused
from actors.messages.cache import CacheEvent, Stored
from actors.messages.sampling import PromptWish, Sampling

DEADLINE_S = 60.0
"""After this a test is taken to hang; no test comes near it."""


class Make(Protocol):
    """Builds an engine of the kind under test, on the same model every time.

    Its context must be 512 tokens or more and its block at most 16 tokens.
    """

    def __call__(self, *, max_running: int = 8, max_waiting: int = 64) -> Engine: ...


def packed(*tokens: int) -> bytes:
    return array("I", tokens).tobytes()


def prompt_of(length: int, *, salt: int = 0) -> bytes:
    """A prompt of small token ids; another salt shares no block with it."""
    return packed(*(1 + (salt * 31 + 7 * position) % 200 for position in range(length)))


def request_of(number: int, prompt: bytes, max_tokens: int, **sampling: Any) -> Request:
    options = {"temperature": 0.0, "ignore_eos": True, **sampling}
    return Request(number, prompt, Sampling(max_tokens=max_tokens, **options))


def wishing(wish: PromptWish, request: Request) -> Request:
    """The same request, with something to be found out about its prompt."""
    sampling = msgspec.structs.replace(request.sampling, prompt=wish)
    return msgspec.structs.replace(request, sampling=sampling)


class Listener:
    """Reads an engine's steps and sorts what they say by request."""

    def __init__(self, engine: Engine, info: Info) -> None:
        self.engine = engine
        self.info = info
        self.lists: list[list[Output]] = []
        self.outputs: dict[int, list[Output]] = {}
        self._heard = asyncio.Event()

    async def listen(self) -> None:
        async for outputs in self.engine.steps():
            assert outputs, "a step without outputs is not told of"
            self.lists.append(list(outputs))
            ids = [output.id for output in self.lists[-1]]
            assert len(ids) == len(set(ids)), "a request is in a step's outputs once"
            for output in self.lists[-1]:
                self.outputs.setdefault(output.id, []).append(output)
            self._heard.set()

    def tokens(self, number: int) -> list[int]:
        return [token for output in self.outputs.get(number, []) for token in output.tokens]

    def finishes(self, number: int) -> list[Finish]:
        return [o.finish for o in self.outputs.get(number, []) if o.finish is not None]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for outputs to make the condition true."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._heard.clear()
                await self._heard.wait()

    async def run(self, *requests: Request) -> None:
        """Submit, and wait until every one of the requests has ended."""
        for request in requests:
            self.engine.submit(request)
        await self.until(lambda: all(self.finishes(request.id) for request in requests))

    async def prefill(self, request: Request) -> Handoff:
        """Run a prefill, which leaves its blocks behind."""
        self.engine.submit(request)
        await self.until(lambda: request.id in self.outputs)
        (output,) = self.outputs[request.id]
        assert output.handoff is not None
        return output.handoff


async def settled(condition: Callable[[], bool]) -> None:
    """Let the loop turn until the condition holds: for states that no output announces."""
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - the contract has no event for this
            await asyncio.sleep(0)


async def unloaded(engine: Engine) -> None:
    """Wait until the engine holds nothing for anyone."""

    def nothing_held() -> bool:
        load = engine.load()
        return (load.running, load.waiting, load.waiting_tokens, load.blocks_used) == (0, 0, 0, 0)

    await settled(nothing_held)


@asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[Listener]:
    """Start an engine and listen to it; close it in the end, which must end the listening."""
    listener = Listener(engine, await engine.start())
    task = asyncio.create_task(listener.listen())
    try:
        yield listener
    finally:
        await engine.close()
        async with asyncio.timeout(DEADLINE_S):
            await task


def apply(index: dict[int, int | None], events: list[CacheEvent]) -> dict[int, int | None]:
    """Do to an index what a router does; every block must be new, or there to be removed."""
    for event in events:
        if isinstance(event, Stored):
            parent = event.parent
            for block in event.blocks:
                assert block not in index
                assert parent is None or parent in index
                index[block] = parent
                parent = block
        else:
            for block in event.blocks:
                del index[block]
    return index


def vector_of(listener: Listener, number: int) -> list[float]:
    """What a request for an embedding brought; nothing else came of it."""
    [output] = listener.outputs[number]
    assert (output.tokens, output.finish) == ([], Finish.STOP)
    assert output.findings is not None
    return array("f", output.findings.embedding).tolist()


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


class EngineContract:
    """Inherit, and define a fixture `make` that returns a `Make`."""

    async def cache_told(self, listener: Listener) -> None:
        """Return when the engine has told of the blocks stored so far: at once for most."""

    def test_start_tells_what_the_engine_is(self, make: Make) -> None:
        async def test() -> None:
            async with running(make(max_running=3)) as listener:
                info = listener.info
                assert info.kind
                assert info.model
                assert info.max_context_tokens >= 512
                assert 1 <= info.block_tokens <= 16
                assert info.blocks_total * info.block_tokens >= 512
                assert info.max_running == 3
                assert all(0 <= token < info.vocabulary for token in info.eos_token_ids)
                load = listener.engine.load()
                assert (load.blocks_total, load.max_running) == (info.blocks_total, 3)

        run(test())

    def test_whole_request_yields_exactly_max_tokens(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                for number, max_tokens in enumerate((1, 2, 17, 40)):
                    await listener.run(request_of(number, prompt_of(20), max_tokens))
                    assert len(listener.tokens(number)) == max_tokens
                    assert listener.outputs[number][-1].finish is Finish.LENGTH
                vocabulary = listener.info.vocabulary
                assert all(0 <= token < vocabulary for token in listener.tokens(3))

        run(test())

    def test_a_prompt_s_vector_is_the_same_whatever_is_cached_and_beside_it(
        self, make: Make
    ) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                fresh = wishing("embedding", request_of(1, prompt_of(300), 1))
                if not listener.info.embedding_size:
                    with pytest.raises(RequestRefused, match="embeddings"):
                        listener.engine.submit(fresh)
                    return
                await listener.run(fresh)
                await listener.run(
                    wishing("embedding", request_of(2, prompt_of(300), 1)),
                    request_of(3, prompt_of(40, salt=1), 8),
                    wishing("embedding", request_of(4, prompt_of(7, salt=2), 1)),
                )
                prefill = wishing("embedding", request_of(5, prompt_of(300), 1))
                await listener.run(msgspec.structs.replace(prefill, phase="prefill"))
                vectors = [vector_of(listener, number) for number in (1, 2, 5)]
                assert len(vectors[0]) == listener.info.embedding_size
                assert math.hypot(*vectors[0]) == pytest.approx(1.0, abs=1e-5)
                for other in vectors[1:]:
                    assert other == pytest.approx(vectors[0], abs=1e-5)
                for number, length in enumerate((1, 257), start=6):
                    await listener.run(
                        wishing("embedding", request_of(number, prompt_of(length), 1))
                    )
                    assert len(vector_of(listener, number)) == listener.info.embedding_size
                assert vector_of(listener, 4) != pytest.approx(vectors[0], abs=1e-3)
                await unloaded(listener.engine)

        run(test())

    def test_a_prompt_s_log_probabilities_come_with_its_first_token(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                prompt = prompt_of(20)
                asked = wishing("logprobs", request_of(2, prompt, 3, logprobs=2))
                long = wishing("logprobs", request_of(4, prompt_of(257), 2, logprobs=0))
                if not listener.info.prompt_logprobs:
                    with pytest.raises(RequestRefused, match="log probabilities"):
                        listener.engine.submit(asked)
                    return
                await listener.run(request_of(1, prompt, 3, logprobs=2), asked, long)
                found = listener.outputs[4][0].findings
                assert found is not None
                assert len(found.logprobs) == 257
                assert len(listener.tokens(4)) == 2
                findings = listener.outputs[2][0].findings
                assert findings is not None
                first, *others = findings.logprobs
                assert math.isnan(first.chosen.logprob)
                tokens = [first.chosen.token, *(entry.chosen.token for entry in others)]
                assert packed(*tokens) == prompt
                assert all(entry.chosen.logprob <= 0.0 for entry in others)
                assert listener.tokens(2) == listener.tokens(1)
                # What was generated is found again when it is part of the prompt.
                longer = packed(*tokens, *listener.tokens(1))
                await listener.run(wishing("logprobs", request_of(3, longer, 1, logprobs=2)))
                again = listener.outputs[3][0].findings
                said = [entry for output in listener.outputs[1] for entry in output.logprobs or ()]
                assert again is not None
                assert [entry.chosen.token for entry in again.logprobs[-3:]] == listener.tokens(1)
                assert [entry.chosen.logprob for entry in again.logprobs[-3:]] == pytest.approx(
                    [entry.chosen.logprob for entry in said], abs=1e-3
                )

        run(test())

    def test_each_request_ends_once_with_its_last_output(self, make: Make) -> None:
        async def test() -> None:
            async with running(make(max_running=4)) as listener:
                numbers = range(12)
                await listener.run(
                    *(request_of(n, prompt_of(3 + 5 * n, salt=n), 1 + n) for n in numbers)
                )
                await unloaded(listener.engine)
                for number in numbers:
                    ends = [output.finish is not None for output in listener.outputs[number]]
                    assert ends == [False] * (len(ends) - 1) + [True]
                assert all(listener.lists)

        run(test())

    def test_prompt_of_one_token_and_of_the_whole_context_both_run(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                longest = listener.info.max_context_tokens - 1
                await listener.run(
                    request_of(1, prompt_of(1), 3), request_of(2, prompt_of(longest), 3)
                )
                assert len(listener.tokens(1)) == 3
                assert len(listener.tokens(2)) == 1
                assert listener.finishes(2) == [Finish.LENGTH]

        run(test())

    def test_greedy_tokens_do_not_depend_on_who_else_is_running(self, make: Make) -> None:
        async def test() -> None:
            requests = [request_of(n, prompt_of(9 + 7 * n, salt=n), 24) for n in range(5)]
            async with running(make()) as together:
                await together.run(*requests)
            async with running(make()) as alone:
                for request in requests:
                    await alone.run(request)
            for request in requests:
                assert together.tokens(request.id) == alone.tokens(request.id)

        run(test())

    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_resumed_request_continues_exactly(self, make: Make, temperature: float) -> None:
        async def test() -> None:
            prompt = prompt_of(21)
            sampled = {"temperature": temperature, "seed": 77}
            async with running(make()) as first, running(make()) as second:
                await first.run(request_of(1, prompt, 30, **sampled))
                said = first.tokens(1)
                for done in (1, 11, 29):
                    request = request_of(done, prompt + packed(*said[:done]), 30 - done, **sampled)
                    resumed = Request(done, request.prompt, request.sampling, resumed=done)
                    await second.run(resumed)
                    assert second.tokens(done) == said[done:]

        run(test())

    def test_prefill_gives_one_token_and_keeps_its_blocks_until_released(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                request = _phase(request_of(1, prompt_of(40), 9), "prefill")
                handoff = await listener.prefill(request)
                (output,) = listener.outputs[1]
                assert output.tokens == [handoff.first_token]
                assert output.finish is None
                held = listener.engine.load()
                assert held.blocks_used >= 40 // listener.info.block_tokens
                assert (held.running, held.waiting) == (0, 0)
                listener.engine.release(1)
                await unloaded(listener.engine)
                assert len(listener.outputs[1]) == 1

        run(test())

    def test_prefill_of_a_single_token_answer_keeps_nothing(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                await listener.run(_phase(request_of(1, prompt_of(40), 1), "prefill"))
                (output,) = listener.outputs[1]
                assert (len(output.tokens), output.handoff) == (1, None)
                assert output.finish is Finish.LENGTH
                await unloaded(listener.engine)

        run(test())

    @pytest.mark.parametrize("length", [5, 16, 33])
    @pytest.mark.parametrize("temperature", [0.0, 1.0])
    def test_prefill_and_decode_elsewhere_say_what_one_engine_says(
        self, make: Make, length: int, temperature: float
    ) -> None:
        async def test() -> None:
            whole = request_of(1, prompt_of(length), 20, temperature=temperature, seed=5)
            async with (
                running(make()) as one,
                running(make()) as context,
                running(make()) as generation,
            ):
                await one.run(whole)
                handoff = await context.prefill(_phase(whole, "prefill"))
                await generation.run(_phase(whole, "decode", handoff))
                context.engine.release(1)
                assert [handoff.first_token, *generation.tokens(1)] == one.tokens(1)
                assert generation.finishes(1) == [Finish.LENGTH]
                fetched = [output.fetched for output in generation.outputs[1]]
                assert fetched.count(True) == 1
                await unloaded(context.engine)
                await unloaded(generation.engine)

        run(test())

    def test_handoff_is_good_for_one_fetch(self, make: Make) -> None:
        async def test() -> None:
            request = request_of(1, prompt_of(20), 5)
            async with running(make()) as context, running(make()) as generation:
                handoff = await context.prefill(_phase(request, "prefill"))
                await generation.run(_phase(request, "decode", handoff))
                again = request_of(2, prompt_of(20), 5)
                await generation.run(_phase(again, "decode", handoff))
                assert generation.finishes(2) == [Finish.ERROR]
                assert generation.outputs[2][-1].error
                await unloaded(generation.engine)

        run(test())

    def test_unreadable_handoff_ends_that_request_alone(self, make: Make) -> None:
        async def test() -> None:
            bad = _phase(request_of(1, prompt_of(20), 5), "decode", Handoff(7, b"no ticket"))
            async with running(make()) as listener:
                # Engines may find out at once or when they fetch.
                try:
                    await listener.run(bad)
                except RequestRefused:
                    pass
                else:
                    assert listener.finishes(1) == [Finish.ERROR]
                await listener.run(request_of(2, prompt_of(20), 5))
                assert len(listener.tokens(2)) == 5
                await unloaded(listener.engine)

        run(test())

    def test_cancel_of_a_running_request_frees_everything(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                listener.engine.submit(request_of(1, prompt_of(40), 400))
                await listener.until(lambda: 1 in listener.outputs)
                listener.engine.cancel(1)
                await listener.until(lambda: bool(listener.finishes(1)))
                assert listener.finishes(1) == [Finish.CANCELLED]
                assert len(listener.tokens(1)) < 400
                await unloaded(listener.engine)

        run(test())

    def test_cancel_of_a_waiting_request_lets_the_others_run(self, make: Make) -> None:
        async def test() -> None:
            async with running(make(max_running=1)) as listener:
                listener.engine.submit(request_of(1, prompt_of(10), 50))
                listener.engine.submit(request_of(2, prompt_of(10), 50))
                listener.engine.cancel(2)
                await listener.run(request_of(3, prompt_of(10), 5))
                await listener.until(lambda: bool(listener.finishes(2)))
                assert listener.finishes(1) == [Finish.LENGTH]
                assert listener.finishes(2) == [Finish.CANCELLED]
                assert listener.tokens(2) == []
                await unloaded(listener.engine)

        run(test())

    def test_cancel_of_a_finished_prefill_frees_its_blocks(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                await listener.prefill(_phase(request_of(1, prompt_of(40), 9), "prefill"))
                listener.engine.cancel(1)
                await listener.until(lambda: bool(listener.finishes(1)))
                assert listener.finishes(1) == [Finish.CANCELLED]
                await unloaded(listener.engine)

        run(test())

    def test_unknown_ids_are_ignored(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                listener.engine.cancel(99)
                listener.engine.release(99)
                await listener.run(request_of(1, prompt_of(10), 5))
                listener.engine.cancel(1)
                listener.engine.release(1)
                await listener.run(request_of(2, prompt_of(10), 5))
                assert 99 not in listener.outputs
                assert listener.finishes(1) == [Finish.LENGTH]

        run(test())

    def test_id_may_be_used_again_after_its_request_ended(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                await listener.run(request_of(1, prompt_of(10), 5))
                listener.engine.submit(request_of(1, prompt_of(10), 5))
                await listener.until(lambda: len(listener.finishes(1)) == 2)
                assert listener.tokens(1)[:5] == listener.tokens(1)[5:]

        run(test())

    def test_impossible_requests_are_refused(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                context = listener.info.max_context_tokens
                good = request_of(1, prompt_of(10), 5)
                for bad in (
                    request_of(2, b"", 5),
                    request_of(3, b"\x01\x00", 5),
                    request_of(4, prompt_of(context), 5),
                    _phase(request_of(5, prompt_of(10), 5), "decode"),
                    _phase(request_of(6, prompt_of(10), 5), "whole", Handoff(1, b"")),
                ):
                    with pytest.raises(RequestRefused):
                        listener.engine.submit(bad)
                listener.engine.submit(good)
                with pytest.raises(RequestRefused):
                    listener.engine.submit(good)
                await listener.until(lambda: bool(listener.finishes(1)))
                await unloaded(listener.engine)
                assert set(listener.outputs) == {1}

        run(test())

    def test_waiting_queue_has_the_limit_it_was_given(self, make: Make) -> None:
        async def test() -> None:
            async with running(make(max_running=2, max_waiting=4)) as listener:
                accepted = 0
                with pytest.raises(RequestRefused):  # noqa: PT012 - refused at an open number
                    for number in range(7):
                        listener.engine.submit(request_of(number, prompt_of(10), 60))
                        accepted += 1
                assert accepted >= 4
                assert listener.engine.load().waiting <= 4
                await listener.until(
                    lambda: all(listener.finishes(number) for number in range(accepted))
                )
                await listener.run(request_of(100, prompt_of(10), 5))

        run(test())

    def test_engine_that_is_not_started_or_is_closed_refuses(self, make: Make) -> None:
        async def test() -> None:
            engine = make()
            with pytest.raises(RequestRefused):
                engine.submit(request_of(1, prompt_of(10), 5))
            async with running(engine):
                pass
            with pytest.raises(RequestRefused):
                engine.submit(request_of(1, prompt_of(10), 5))

        run(test())

    def test_progress_grows_while_busy_and_rest_follows(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                engine = listener.engine
                await settled(lambda: not engine.busy)
                before = engine.progress
                engine.submit(request_of(1, prompt_of(10), 30))
                assert engine.busy
                await listener.until(lambda: bool(listener.outputs))
                early, was_over = engine.progress, bool(listener.finishes(1))
                await listener.until(lambda: bool(listener.finishes(1)))
                # An engine of other threads may have ended before it was looked at.
                assert before < early
                assert was_over or early < engine.progress
                await settled(lambda: not engine.busy)

        run(test())

    def test_repeated_prompt_is_found_in_the_cache(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                if not listener.info.publishes_cache_events:
                    pytest.skip("this engine reuses nothing")
                await listener.run(request_of(1, prompt_of(50), 5))
                await self.cache_told(listener)
                await listener.run(request_of(2, prompt_of(50), 5))
                first, second = listener.outputs[1][0], listener.outputs[2][0]
                whole_blocks = 50 // listener.info.block_tokens * listener.info.block_tokens
                assert (first.cached_tokens, second.cached_tokens) == (0, whole_blocks)
                assert all(output.cached_tokens == 0 for output in listener.outputs[2][1:])
                assert listener.tokens(1) == listener.tokens(2)

        run(test())

    def test_cache_events_lead_from_one_snapshot_to_the_next(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                if not listener.info.publishes_cache_events:
                    pytest.skip("this engine reuses nothing")
                engine = listener.engine
                await listener.run(request_of(0, prompt_of(64), 20))
                await self.cache_told(listener)
                index = apply({}, engine.cache_snapshot())
                assert index
                assert engine.take_cache_events() == []
                # Far more than the pool holds, so that blocks are evicted on the way.
                rounds = 2 * listener.info.blocks_total * listener.info.block_tokens // 256
                assert rounds < 100, "the pool under test is too large to overflow"
                for number in range(1, rounds):
                    await listener.run(request_of(number, prompt_of(250, salt=number), 20))
                    if number % 2:
                        apply(index, engine.take_cache_events())
                await unloaded(engine)
                await self.cache_told(listener)
                apply(index, engine.take_cache_events())
                assert index == apply({}, engine.cache_snapshot())
                assert len(index) <= listener.info.blocks_total

        run(test())

    def test_close_ends_steps_and_silences_live_requests(self, make: Make) -> None:
        async def test() -> None:
            engine = make()
            async with running(engine) as listener:
                engine.submit(request_of(1, prompt_of(10), 400))
                await listener.until(lambda: 1 in listener.outputs)
            assert listener.finishes(1) == []
            assert len(listener.tokens(1)) < 400

        run(test())


def _phase(request: Request, phase: Any, handoff: Handoff | None = None) -> Request:
    return Request(request.id, request.prompt, request.sampling, phase=phase, handoff=handoff)
