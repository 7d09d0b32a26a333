"""What a client sees when parts of the service are lost: every token of the reference, or an
explicit error."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from actors.ingress.actor import Ingress
from actors.messages.assign import Assigned
from actors.messages.frame import Frame
from actors.messages.key import RequestKey
from actors.preprocessor.actor import Preprocessor
from actors.router.actor import Router
from actors.runtime.address import Address
from actors.runtime.errors import ActorFailed
from actors.runtime.message import split
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker, Worker
from tests.actors.ingress.clients import (
    CHAT,
    COMPLETIONS,
    Answer,
    Connection,
    completion,
    connected,
    fetch,
)
from tests.service import (
    MODEL,
    Weather,
    aggregated,
    disaggregated,
    empty,
    encoded,
    encoded_chat,
    eventually,
    reference_text,
)

STEPS_OF_2_MS: dict[str, Any] = {
    "decode_ms": {"quadratic": 0, "linear": 0, "constant": 2},
    "speedup": 1,
}
IMPATIENT = {
    "attempts": 1000,
    "assign_timeout_s": 0.15,
    "progress_timeout_s": 0.15,
    "gap_timeout_s": 0.03,
    "retry_s": 0.01,
}
TOKENS = 60
GONE = {"first": range(3), "middle": range(20, 25), "last": range(TOKENS - 3, TOKENS)}
ROLES: dict[str, type[Worker]] = {
    "context": ContextWorker,
    "generation": GenerationWorker,
    "aggregated": AggregatedWorker,
}


async def begin(connection: Connection, **fields: Any) -> bytes:
    """Send a streamed request; return the first piece of its answer."""
    await connection.post(COMPLETIONS, completion(stream=True, max_tokens=TOKENS, **fields))
    status, _ = await connection.head()
    assert status == 200
    return await connection.chunk()


async def rest_of(connection: Connection, begun: bytes) -> Answer:
    while chunk := await connection.chunk():
        begun += chunk
    return Answer(200, {}, begun)


def expected(prompt: str = "hello", seed: int = 5, count: int = TOKENS) -> str:
    return reference_text(encoded(prompt), seed, count)


def replays(ingress: Ingress) -> list[int]:
    return [choice.session.epoch for choice in ingress._choices.values()]


@pytest.mark.parametrize("role", ["generation", "aggregated"])
async def test_a_successor_goes_on_where_a_killed_worker_was(role: str) -> None:
    start = disaggregated if role == "generation" else aggregated
    async with start(**STEPS_OF_2_MS) as (service, ingress), connected(ingress) as connection:
        begun = await begin(connection)

        await service.kill(f"{role}/0")
        await service.start_worker(ROLES[role], role, **STEPS_OF_2_MS)
        await eventually(lambda: replays(ingress)[0] > 0)
        answer = await rest_of(connection, begun)

        assert answer.text == expected()
        assert answer.events[-2]["choices"][0]["finish_reason"] == "length"


async def test_an_engine_that_fails_at_a_token_is_succeeded_by_another_worker() -> None:
    for strike in (1, 2, 20, TOKENS):
        async with empty() as service:
            fault = {"do": "fail", "request": 1, "token": strike}
            broken = await service.start_worker(
                AggregatedWorker, "aggregated", 0, faults=[fault], **STEPS_OF_2_MS
            )
            ingress = await service.start_roles()
            async with connected(ingress) as connection:
                await connection.post(COMPLETIONS, completion(stream=True, max_tokens=TOKENS))
                with pytest.raises(ActorFailed):
                    await asyncio.wait_for(broken.wait(), 10)
                await service.start_worker(AggregatedWorker, "aggregated", 1, **STEPS_OF_2_MS)
                await service.kill("aggregated/0")

                assert (await connection.answer()).text == expected()


async def test_a_worker_that_falls_again_and_again_loses_no_token() -> None:
    async with aggregated(**STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as connection:
            begun = await begin(connection)
            for epoch in range(1, 6):
                await service.kill("aggregated/0")
                await service.start_worker(AggregatedWorker, "aggregated", **STEPS_OF_2_MS)
                await eventually(lambda: replays(ingress)[0] >= epoch)  # noqa: B023
                begun += await connection.chunk()
            answer = await rest_of(connection, begun)

        assert answer.text == expected()


async def test_a_context_worker_that_falls_during_the_prefill_is_succeeded() -> None:
    slow: dict[str, Any] = {
        "prefill_ms": {"quadratic": 0, "linear": 0, "constant": 3_600_000},
        "speedup": 1,
    }
    async with empty() as service:
        await service.start_worker(ContextWorker, "context", **slow)
        await service.start_worker(GenerationWorker, "generation")
        ingress = await service.start_roles()
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(max_tokens=TOKENS))
            await eventually(lambda: service.engine("context/0").load().running == 1)

            await service.kill("context/0")

            assert (await connection.answer()).text == expected(), "by the generation worker alone"


async def test_a_request_given_to_a_worker_that_is_away_already_is_put_forward_again() -> None:
    """By a router that has not heard of it yet; nobody will tell of that loss again."""
    slow = {"assign_timeout_s": 60.0, "silence_s": 60.0}
    async with disaggregated(ingress={"replay": slow}) as (service, ingress):
        await service.silence("router/0")
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(max_tokens=TOKENS))
            await eventually(lambda: bool(ingress._choices))
            [choice] = ingress._choices.values()
            gone = Address("generation", 0, 1)
            assert ingress.directory.is_away(gone)
            ingress.assigned(Assigned(RequestKey(ingress.address, choice.number, 0), None, gone, 3))
            assert choice.session.epoch == 1
            await service.kill("router/0")
            await service.start(Hosted(actor=Router, role="router"))

            assert (await connection.answer()).text == expected()


@pytest.mark.parametrize("role", ["router", "preprocessor"])
async def test_a_request_lost_with_a_role_on_its_way_is_submitted_again(role: str) -> None:
    actor = {"router": Router, "preprocessor": Preprocessor}[role]
    async with disaggregated(ingress={"replay": IMPATIENT}) as (service, ingress):
        await fetch(ingress, COMPLETIONS, completion())
        await service.silence(f"{role}/0")
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(max_tokens=TOKENS))
            await eventually(lambda: bool(ingress._choices))

            await service.kill(f"{role}/0")
            await service.start(Hosted(actor=actor, role=role))

            assert (await connection.answer()).text == expected()


async def test_a_request_waits_for_the_successor_of_a_draining_preprocessor() -> None:
    async with disaggregated() as (service, ingress):
        node = service.nodes.pop("preprocessor/0")
        await node.drain()
        await eventually(lambda: not ingress.has_role("preprocessor"))

        asking = asyncio.create_task(fetch(ingress, COMPLETIONS, completion(max_tokens=TOKENS)))
        await eventually(lambda: bool(ingress._choices))
        await node.stop()
        await service.start(Hosted(actor=Preprocessor, role="preprocessor"))

        assert (await asking).text == expected()


async def test_a_running_stream_needs_neither_router_nor_preprocessor() -> None:
    async with (
        disaggregated(**STEPS_OF_2_MS) as (service, ingress),
        connected(ingress) as connection,
    ):
        begun = await begin(connection)

        await service.kill("router/0")
        await service.kill("preprocessor/0")

        assert (await rest_of(connection, begun)).text == expected()


@pytest.mark.parametrize("gone", ["router/0", "preprocessor/0", "generation/0"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_can_serve_is_a_503_that_says_when_to_come_again(
    gone: str, *, stream: bool
) -> None:
    async with disaggregated(ingress={"replay": {"restart_s": 0.05}}) as (service, ingress):
        await service.kill(gone)

        answer = await fetch(ingress, COMPLETIONS, completion(stream=stream))

        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.json["error"]["code"] == "unavailable"


@pytest.mark.parametrize("gone", ["router", "preprocessor", "generation"])
async def test_a_new_request_waits_a_moment_for_the_successor_of_what_has_just_fallen(
    gone: str,
) -> None:
    async with disaggregated() as (service, ingress):
        await service.kill(f"{gone}/0")
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(max_tokens=TOKENS))
            await asyncio.sleep(0.05)
            if gone == "generation":
                await service.start_worker(GenerationWorker, gone)
            else:
                actor = {"router": Router, "preprocessor": Preprocessor}[gone]
                await service.start(Hosted(actor=actor, role=gone))

            assert (await connection.answer()).text == expected()


@pytest.mark.parametrize("which", GONE)
@pytest.mark.parametrize("start", [disaggregated, aggregated])
async def test_frames_lost_on_the_way_are_sent_again_by_the_worker(start: Any, which: str) -> None:
    async with start(**STEPS_OF_2_MS) as (service, ingress), connected(ingress) as connection:
        # By tokens, as a frame may hold those of several steps: it is lost if it brings these, when
        # it comes for the first time.
        lost = set(GONE[which])

        def lose(subject: str, frame: bytes) -> list[float]:
            if not subject.endswith("a.ingress.0") or b"Frame" not in frame:
                return [0.0]
            chunks = msgspec.msgpack.decode(split(frame).body, type=Frame).everything()
            brought = {chunk.offset + i for chunk in chunks for i in range(len(chunk.tokens))}
            gone = bool(brought & lost)
            lost.difference_update(brought)
            return [] if gone else [0.0]

        service.bus.fate = lose
        await connection.post(COMPLETIONS, completion(stream=True, max_tokens=TOKENS))
        await eventually(lambda: bool(ingress._choices))
        [session] = [choice.session for choice in ingress._choices.values()]

        assert (await connection.answer()).text == expected()
        assert session.epoch == 0, "it was not run again"
        assert session.asked > 0


async def test_a_worker_that_did_not_hear_that_nobody_waits_is_told_again() -> None:
    async with aggregated(**STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as connection:
            endless = completion(stream=True, max_tokens=1_000_000)
            await connection.post(COMPLETIONS, endless)
            await connection.head()
            service.bus.fate = lambda subject, _: [] if "aggregated" in subject else [0.0]
            connection.abort()
            await eventually(lambda: not ingress._choices)
            assert not service.at_rest("aggregated/0")
            service.bus.fate = lambda *_: [0.0]

        await eventually(lambda: service.at_rest("aggregated/0"))


async def test_a_request_whose_end_was_never_told_is_ended_by_its_budget() -> None:
    options = {"request_timeout_s": 0.5}
    async with (
        aggregated(ingress=options, **STEPS_OF_2_MS) as (service, ingress),
        connected(ingress) as connection,
    ):
        await connection.post(COMPLETIONS, completion(stream=True, max_tokens=1_000_000))
        await connection.head()
        await service.silence("ingress/0")

        await eventually(lambda: service.at_rest("aggregated/0"))


async def test_a_service_that_never_had_a_worker_is_unavailable_too() -> None:
    async with empty() as service:
        ingress = await service.start_roles()

        assert (await fetch(ingress, COMPLETIONS, completion())).status == 503
        assert (await fetch(ingress, "/v1/models")).json["data"] == []


async def test_a_stream_no_worker_comes_back_for_ends_in_an_error_event() -> None:
    replay = {**IMPATIENT, "recovery_s": 0.05}
    async with aggregated(ingress={"replay": replay}, **STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as connection:
            begun = await begin(connection)

            await service.kill("aggregated/0")
            answer = await rest_of(connection, begun)

        assert answer.events[-1] == "[DONE]"
        assert answer.events[-2]["error"]["code"] == "unavailable"


async def test_a_stalled_engine_is_left_for_another_worker() -> None:
    async with empty() as service:
        fault = {"do": "stall", "request": 1, "token": 10}
        await service.start_worker(
            AggregatedWorker, "aggregated", 0, faults=[fault], **STEPS_OF_2_MS
        )
        ingress = await service.start_roles(replay=IMPATIENT)
        async with connected(ingress) as connection:
            begun = await begin(connection)
            await service.start_worker(AggregatedWorker, "aggregated", 1, **STEPS_OF_2_MS)

            assert (await rest_of(connection, begun)).text == expected()
        assert service.engine("aggregated/0").faults_fired == {"stall": 1}


async def test_a_handoff_that_fails_is_tried_again() -> None:
    async with empty() as service:
        faults = [{"do": "fail_handoff", "handoff": 1}, {"do": "fail_handoff", "handoff": 2}]
        await service.start_worker(ContextWorker, "context")
        await service.start_worker(GenerationWorker, "generation", faults=faults)
        ingress = await service.start_roles()

        answer = await fetch(ingress, COMPLETIONS, completion(max_tokens=TOKENS))

        assert answer.text == expected()
        assert service.engine("generation/0").faults_fired == {"fail_handoff": 2}
        await eventually(lambda: service.at_rest("context/0") and service.at_rest("generation/0"))


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("service", [disaggregated, aggregated])
async def test_a_bad_network_loses_doubles_and_delays_no_token(service: Any, seed: int) -> None:
    async with service(ingress={"replay": IMPATIENT}) as (running, ingress):
        await fetch(ingress, COMPLETIONS, completion())
        weather = running.bus.fate = Weather(seed, of=20, lost=1, doubled=2, delayed=6)

        async def ask(number: int) -> Answer:
            body = completion("hello", seed=number, max_tokens=20, stream=number % 2 == 0)
            return await fetch(ingress, COMPLETIONS, body)

        answers = await asyncio.gather(*(ask(number) for number in range(12)))

        for number, answer in enumerate(answers):
            assert answer.status == 200, answer
            assert answer.text == expected(seed=number, count=20)
        assert weather.struck


async def test_a_bad_network_and_a_killed_worker_at_once_lose_no_token() -> None:
    async with disaggregated(ingress={"replay": IMPATIENT}, **STEPS_OF_2_MS) as (service, ingress):
        weather = service.bus.fate = Weather(1, of=50, lost=1, doubled=5, delayed=10)
        body = {
            "model": MODEL,
            "messages": [{"role": "user", "content": "hello"}],
            "max_tokens": TOKENS,
            "stream": True,
        }
        asks = [fetch(ingress, CHAT, {**body, "seed": seed}) for seed in range(6)]
        answers = asyncio.gather(*asks)
        await eventually(lambda: service.engine("generation/0").progress > 10)

        await service.kill("generation/0")
        await service.start_worker(GenerationWorker, "generation", **STEPS_OF_2_MS)

        prompt = encoded_chat({"role": "user", "content": "hello"})
        for seed, answer in enumerate(await answers):
            assert answer.text == reference_text(prompt, seed, TOKENS)
        assert weather.struck


async def test_a_zombie_s_tokens_reach_nobody() -> None:
    async with aggregated(**STEPS_OF_2_MS) as (service, ingress), connected(ingress) as connection:
        begun = await begin(connection)
        [session] = [choice.session for choice in ingress._choices.values()]

        # Its lease runs out, and it is deaf; but it lives, and goes on sending.
        service.bus.fate = lambda subject, _: [] if subject == "test.a.aggregated.0" else [0.0]
        service.store.delete("aggregated/0")
        await service.start_worker(AggregatedWorker, "aggregated", 1, **STEPS_OF_2_MS)
        answer = await rest_of(connection, begun)

        assert answer.text == expected()
        assert session.stale_chunks > 0


async def test_a_timer_that_is_due_already_can_be_set_again() -> None:
    """uvloop's handle for such a timer cannot tell when it fires."""
    async with aggregated() as (_service, ingress):
        due = SimpleNamespace(wake_at=ingress.clock.now() - 1.0)
        choice = SimpleNamespace(session=due, timer=None, timer_at=0.0, number=-1)

        ingress._arm(choice)  # type: ignore[arg-type]  # all that is used of a Choice
        ingress._arm(choice)  # type: ignore[arg-type]  # all that is used of a Choice

        assert choice.timer is not None
