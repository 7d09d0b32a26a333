"""The known defects of NVIDIA's first TensorRT-LLM example for Dynamo, each as a test that they are
not here: in this engine, or in the part that does the same here."""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import actors.engines.tensorrt_llm as package
from actors.engines.base import Finish, Request
from actors.engines.prompts import pack_tokens
from actors.engines.tensorrt_llm.events import EventReader
from actors.engines.tensorrt_llm.stats import read_stats
from actors.kv.hashing import sequence_hashes
from actors.messages.work import Decode
from supervisor.topology.disaggregation import read_disaggregation_text
from tests.actors.engines.contract import (
    packed,
    prompt_of,
    request_of,
    run,
    running,
    settled,
    unloaded,
)
from tests.actors.engines.tensorrt_llm.fixtures import installed, make_engine, save_model
from tests.actors.ingress.clients import official
from tests.actors.router.fleets import Theatre, chosen, entry
from tests.service import MODEL, aggregated, encoded, tokenizer

BLOCK = 4


@pytest.fixture
def standin(tmp_path: Path) -> Iterator[Any]:
    with installed("1.2", os.environ, tmp_path) as module:
        save_model(tmp_path)
        yield module


def test_1_prefix_routing_serves_without_anybody_who_knows_a_prefix() -> None:
    theatre = Theatre(entry("aggregated", 0), entry("aggregated", 1), strategy="prefix")

    assert chosen(theatre.place(tuple(range(40)))) in {"aggregated/0", "aggregated/1"}


def test_2_no_token_of_the_prompt_is_dropped_as_if_it_were_a_bos() -> None:
    text = "The capital of France is"

    assert tokenizer().decode(list(memoryview(encoded(text)).cast("I"))).endswith(text)
    assert encoded(text) == b"".join(
        token.to_bytes(4, "little") for token in memoryview(encoded(text)).cast("I")
    )


def test_3_the_last_chunk_of_a_streamed_chat_has_its_finish_reason() -> None:
    async def test() -> None:
        async with aggregated() as (_, ingress), official(ingress) as client:
            stream = await client.chat.completions.create(
                model=MODEL,
                messages=[{"role": "user", "content": "Hello"}],
                max_tokens=4,
                stream=True,
            )
            reasons = [c.choices[0].finish_reason async for c in stream if c.choices]
        assert reasons[-1] == "length"
        assert reasons[:-1] == [None] * (len(reasons) - 1)

    run(test())


def test_4_the_load_of_every_worker_counts() -> None:
    for free in range(3):
        theatre = Theatre(*(entry("aggregated", n) for n in range(3)), strategy="least_loaded")
        for number in range(3):
            if number != free:
                theatre.says(f"aggregated/{number}", blocks=500, running=3)
        assert chosen(theatre.place(tuple(range(40)))) == f"aggregated/{free}"


def _stored(parent: int | None, *blocks: tuple[int, list[int]]) -> dict[str, Any]:
    return {
        "event_id": 1,
        "data": {
            "type": "stored",
            "parent_hash": parent,
            "blocks": [
                {
                    "type": "stored_block",
                    "block_hash": key,
                    "tokens": [{"token_id": token, "token_extra_id": 0} for token in tokens],
                }
                for key, tokens in blocks
            ],
        },
    }


def test_5_each_block_of_one_event_continues_the_one_before() -> None:
    tokens = list(range(16))
    reader = EventReader(BLOCK)
    parts = [(2**63 + at, tokens[at : at + BLOCK]) for at in range(0, 16, BLOCK)]

    changes = [*reader.read(_stored(None, *parts[:3])), *reader.read(_stored(2**63 + 8, parts[3]))]

    expected = sequence_hashes(pack_tokens(tokens), BLOCK)
    assert [one for change in changes for one in change.hashes] == expected
    assert [getattr(change, "parent", None) for change in changes] == [None, *expected[:3]]


def test_6_a_request_that_fails_is_not_in_flight_any_more(standin: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path)) as listener:
            await listener.run(request_of(1, packed(1, 253), 5))
            assert listener.finishes(1) == [Finish.ERROR]
            assert not listener.engine.busy
            await unloaded(listener.engine)

    run(test())


def test_7_a_decode_is_given_the_prompt_alone(standin: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running(make_engine(tmp_path, duty="context")) as context,
            running(make_engine(tmp_path)) as generation,
        ):
            given: list[list[int]] = []
            executor = standin.made[1]._executor
            enqueue = executor.enqueue

            def spy(prompt: list[int], *arguments: Any, **options: Any) -> Any:
                given.append(prompt)
                return enqueue(prompt, *arguments, **options)

            executor.enqueue = spy
            asked = request_of(1, prompt_of(20), 6)
            handoff = await context.prefill(Request(1, asked.prompt, asked.sampling, "prefill"))
            await generation.run(Request(1, asked.prompt, asked.sampling, "decode", handoff))
            assert [pack_tokens(prompt) for prompt in given] == [asked.prompt]
            # And the context's token is counted once.
            assert len(generation.tokens(1)) == 5

    run(test())


def test_8_an_opaque_state_travels_as_bytes_and_never_to_a_client(
    standin: Any, tmp_path: Path
) -> None:
    async def test() -> None:
        async with (
            running(make_engine(tmp_path, duty="context")) as context,
            running(make_engine(tmp_path)) as generation,
        ):
            asked = request_of(1, prompt_of(20), 6)
            handoff = await context.prefill(Request(1, asked.prompt, asked.sampling, "prefill"))
            assert b"\xff\xfe" in handoff.ticket  # no JSON, no UTF-8
            travelled = msgspec.msgpack.decode(msgspec.msgpack.encode(handoff.ticket), type=bytes)
            assert travelled == handoff.ticket
            assert Decode.__annotations__["ticket"] in {bytes, "bytes"}
            await generation.run(Request(1, asked.prompt, asked.sampling, "decode", handoff))
            assert all(output.handoff is None for output in generation.outputs[1])

    run(test())


def test_9_nobody_asks_an_idle_engine_for_news(standin: Any, tmp_path: Path) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path, quiet_s=0.02)) as listener:
            calls: list[str] = []
            llm = standin.made[0]

            def counted(name: str) -> None:
                ask = getattr(llm, name)

                def count(**options: Any) -> Any:
                    calls.append(name)
                    return ask(**options)

                setattr(llm, name, count)

            counted("get_stats_async")
            counted("get_kv_cache_events_async")
            await listener.run(request_of(1, prompt_of(40), 9))
            await settled(lambda: bool(listener.engine.cache_snapshot()))
            await asyncio.sleep(0.3)
            before = len(calls)
            await asyncio.sleep(0.5)
            # Polling every 5 ms would have asked 200 times.
            assert len(calls) == before
            assert {"get_stats_async", "get_kv_cache_events_async"} == set(calls)

    run(test())


def test_10_a_cancelled_request_is_aborted_and_a_close_shuts_down(
    standin: Any, tmp_path: Path
) -> None:
    async def test() -> None:
        async with running(make_engine(tmp_path)) as listener:
            executor = standin.made[0]._executor
            aborted: list[int] = []
            abort = executor.abort

            def spy(number: int) -> None:
                aborted.append(number)
                abort(number)

            executor.abort = spy
            listener.engine.submit(request_of(1, prompt_of(9), 480))
            await listener.until(lambda: 1 in listener.outputs)
            listener.engine.cancel(1)
            await listener.until(lambda: bool(listener.finishes(1)))
            assert listener.finishes(1) == [Finish.CANCELLED]
            assert len(aborted) == 1
        assert not executor._thread.is_alive()

    run(test())


def test_11_usage_is_the_blocks_in_use_not_those_ever_allocated() -> None:
    stats = read_stats(
        {"kvCacheStats": {"maxNumBlocks": 100, "usedNumBlocks": 7, "allocTotalBlocks": 4000}}
    )

    assert (stats.blocks_used, stats.blocks_total) == (7, 100)
    assert read_stats({"kvCacheStats": None, "inflightBatchingStats": None}).blocks_used is None


def test_12_world_size_counts_ranks_not_workers() -> None:
    found = read_disaggregation_text(
        "generation_servers: {num_instances: 2, tensor_parallel_size: 2}", Path("x.yaml")
    )

    assert (len(found.servers), found.world_size) == (2, 4)


def test_13_every_module_can_be_imported_without_tensorrt_llm() -> None:
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]

    assert "engine" in names
    for name in names:
        importlib.import_module(f"{package.__name__}.{name}")
