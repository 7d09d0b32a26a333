"""What clients say in headers of the placement, and what they are told of it."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from multidict import CIMultiDict

from actors.ingress.openai.errors import ApiError
from actors.ingress.wishes import Wishes, read_wishes
from actors.messages.explain import Explained
from actors.preprocessor.actor import Preprocessor
from actors.router.actor import Router
from actors.router.options import RouterOptions
from actors.runtime.node import Hosted
from actors.worker.actor import AggregatedWorker, ContextWorker, GenerationWorker
from tests.service import MODEL, Service, empty, eventually

PROMPT = "The capital of France is Paris and the capital of Chad is N'Djamena. " * 6


def read(headers: dict[str, str], user: str | None = None, tenant: str = "") -> Wishes:
    return read_wishes(CIMultiDict(headers), user, tenant)


def test_a_request_without_headers_wishes_nothing() -> None:
    assert read({}) == Wishes()


def test_names_travel_as_hashes_and_the_session_header_goes_before_the_user() -> None:
    by_header = read({"X-Understudy-Session": "s1"}, user="u").hints
    by_user = read({}, user="u").hints

    assert by_header.session == read({"x-understudy-session": "s1"}).hints.session != 0
    assert by_user.session not in {0, by_header.session}


def test_the_tenant_is_the_api_key_or_the_header_the_operator_names() -> None:
    headers = {"Authorization": "Bearer one", "X-Team": "blue"}

    assert read(headers).hints.tenant != read({"Authorization": "Bearer two"}).hints.tenant
    assert read(headers, tenant="x-team") == read({"X-Team": "blue"}, tenant="x-team")


def test_priority_strategy_and_timeout_are_passed_on() -> None:
    wishes = read(
        {
            "x-understudy-priority": "-3",
            "x-understudy-strategy": "random",
            "x-understudy-timeout-s": "1.5",
        }
    )

    assert (wishes.hints.priority, wishes.hints.strategy, wishes.timeout_s) == (-3, "random", 1.5)
    assert math.isinf(read({}).timeout_s)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-understudy-priority", "high"),
        ("x-understudy-timeout-s", "soon"),
        ("x-understudy-timeout-s", "0"),
        ("x-understudy-timeout-s", "nan"),
    ],
)
def test_a_header_that_cannot_be_meant_is_named(name: str, value: str) -> None:
    with pytest.raises(ApiError) as caught:
        read({name: value})

    assert (caught.value.status, caught.value.param) == (400, name)


# -- through the whole service -------------------------------------------------------------------


@asynccontextmanager
async def serving(
    *, router: dict[str, Any] | None = None, pair: bool = False, **engine: Any
) -> AsyncIterator[tuple[Service, str]]:
    """A service, and its URL."""
    async with empty() as service:
        if pair:
            await service.start_worker(ContextWorker, "context", **engine)
            await service.start_worker(GenerationWorker, "generation", **engine)
        else:
            for instance in range(2):
                await service.start_worker(AggregatedWorker, "aggregated", instance, **engine)
        options = msgspec.convert(router or {}, RouterOptions)
        await service.start(Hosted(actor=Router, role="router", options=options))
        await service.start(Hosted(actor=Preprocessor, role="preprocessor"))
        ingress = await service.start_ingress()
        await eventually(lambda: synced(service))
        assert ingress._server.url is not None
        yield service, ingress._server.url


def synced(service: Service) -> bool:
    gauges = service.actor(Router, "router/0").gauges()
    return gauges["workers"] == 2 and not gauges["unsynced_workers"]


async def post(
    url: str, *, prompt: str = PROMPT, stream: bool = False, max_tokens: int = 4, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": max_tokens, "stream": stream}
    named = {f"x-understudy-{name.replace('_', '-')}": value for name, value in headers.items()}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/completions", json=body, headers=named) as response,
    ):
        named = {name.lower(): value for name, value in response.headers.items()}
        return response.status, named, await response.read()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_response_says_who_served_it_when_asked(*, stream: bool) -> None:
    async with serving(pair=True) as (_, url):
        _, headers, _ = await post(url, stream=stream, explain="1")
        _, silent, _ = await post(url, stream=stream)

        assert headers["x-understudy-context"] == "context/0"
        assert headers["x-understudy-generation"] == "generation/0"
        assert headers["x-understudy-matched-tokens"] == "0"
        assert float(headers["x-understudy-queued-ms"]) == 0.0
        assert not [name for name in silent if name.startswith("x-understudy")]


async def test_a_second_turn_goes_to_the_worker_that_has_the_first() -> None:
    async with serving() as (_, url):
        for number in range(6):
            prompt = f"Conversation {number}. {PROMPT}"
            _, first, _ = await post(url, prompt=prompt, explain="1")
            _, second, _ = await post(url, prompt=prompt + "And Germany?", explain="1")

            assert first["x-understudy-generation"] == second["x-understudy-generation"]
            assert int(second["x-understudy-matched-tokens"]) >= 32


async def test_a_dry_run_lists_the_candidates_and_runs_nothing() -> None:
    async with serving() as (service, url):
        status, _, body = await post(url, explain="only")

        explained = msgspec.json.decode(body)
        assert status == 200
        fields = dict(zip(Explained.__struct_fields__, explained[1:], strict=True))
        assert fields["strategy"] == "kv"
        assert len(fields["candidates"]) == 2
        assert sum(one["chosen"] for one in fields["candidates"]) == 1
        assert service.engine("aggregated/0").progress == 0
        assert service.engine("aggregated/1").progress == 0


async def test_a_strategy_is_overridden_only_where_the_operator_permits_it() -> None:
    async with serving(router={"override": True}) as (service, url):
        assert (await post(url, strategy="random"))[0] == 200
        status, _, body = await post(url, strategy="magic")
        assert (status, b"round_robin" in body) == (400, True)
        assert service.actor(Router, "router/0").gauges()["overridden"] == 1
    async with serving() as (_, url):
        status, _, body = await post(url, strategy="random")
        assert (status, b"does not let" in body) == (400, True)


async def test_beyond_the_queue_clients_are_told_to_come_again() -> None:
    admission = {"fill": 1.0, "queue": 0}
    async with serving(router={"admission": admission}, max_running=1, speedup=1) as (_, url):
        async with aiohttp.ClientSession() as session:
            body = {"model": MODEL, "prompt": "x", "max_tokens": 30_000, "stream": True}
            streams = [await session.post(f"{url}/v1/completions", json=body) for _ in range(2)]

            status, headers, answer = await post(url)

            for stream in streams:
                stream.close()
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        assert msgspec.json.decode(answer)["error"]["code"] == "rate_limit_exceeded"


async def test_a_queued_request_runs_when_there_is_room_and_says_how_long_it_waited() -> None:
    admission = {"fill": 1.0}
    async with serving(router={"admission": admission}, max_running=1, speedup=1) as (_, url):
        async with aiohttp.ClientSession() as session:
            body = {"model": MODEL, "prompt": "x", "max_tokens": 20, "stream": True}
            streams = [await session.post(f"{url}/v1/completions", json=body) for _ in range(2)]

            status, headers, _ = await post(url, explain="1")

            for stream in streams:
                stream.close()
        assert status == 200
        assert float(headers["x-understudy-queued-ms"]) > 0


async def test_a_client_s_own_limit_of_time_holds() -> None:
    async with serving(speedup=1) as (_, url):
        status, _, body = await post(url, max_tokens=30_000, timeout_s="0.2")

        assert status == 504
        assert b"0.2 s" in body
