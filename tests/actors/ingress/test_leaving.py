"""Clients that leave, clients that do not read, and the ingress' own end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from actors.ingress.actor import Ingress
from actors.ingress.http import AddressInUse
from tests.actors.ingress.clients import COMPLETIONS, Answer, completion, connected, fetch
from tests.service import (
    Service,
    aggregated,
    disaggregated,
    empty,
    encoded,
    eventually,
    reference_text,
)

ENDLESS: dict[str, Any] = {"max_tokens": 1_000_000}
STEPS_OF_2_MS: dict[str, Any] = {
    "decode_ms": {"quadratic": 0, "linear": 0, "constant": 2},
    "speedup": 1,
}


WORKERS = {"context", "generation", "aggregated"}


def working(service: Service, name: str) -> bool:
    return service.engine(name).load().running > 0


async def all_at_rest(service: Service, ingress: Ingress) -> None:
    """Return when nothing of any request is left anywhere."""
    workers = [name for name in service.nodes if name.split("/")[0] in WORKERS]
    await eventually(lambda: all(service.at_rest(name) for name in workers))
    await eventually(lambda: not ingress._exchanges and not ingress._choices)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("service", [disaggregated, aggregated])
async def test_a_client_that_leaves_takes_its_request_down_to_the_engine(
    service: Any, n: int, *, stream: bool
) -> None:
    async with service(**STEPS_OF_2_MS) as (running, ingress):
        last = "generation/0" if service is disaggregated else "aggregated/0"
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(stream=stream, n=n, **ENDLESS))
            if stream:
                assert (await connection.head())[0] == 200
            await eventually(lambda: running.engine(last).load().running == n)
            connection.abort()

        await all_at_rest(running, ingress)


async def test_a_client_that_leaves_during_the_prefill_is_noticed_too() -> None:
    hour_ms = {"quadratic": 0, "linear": 0, "constant": 3_600_000}
    async with disaggregated(prefill_ms=hour_ms, speedup=1) as (service, ingress):
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(stream=True))
            await eventually(lambda: working(service, "context/0"))
            connection.abort()

        await all_at_rest(service, ingress)


async def test_requests_of_others_go_on_when_a_client_leaves() -> None:
    async with disaggregated(**STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as leaving, connected(ingress) as staying:
            await leaving.post(COMPLETIONS, completion(stream=True, **ENDLESS))
            await staying.post(COMPLETIONS, completion(stream=True, max_tokens=40))
            await leaving.head()
            leaving.abort()
            answer = await staying.answer()

        assert answer.text == reference_text(encoded("hello"), 5, 40)
        await all_at_rest(service, ingress)


async def test_a_client_that_does_not_read_is_cut_and_others_are_not_affected() -> None:
    async with (
        disaggregated(ingress={"max_unsent_bytes": 8192}) as (service, ingress),
        connected(ingress) as stuck,
        connected(ingress) as other,
    ):
        await stuck.post(COMPLETIONS, completion(stream=True, n=8, **ENDLESS))
        await stuck.head()
        stuck.stop_reading()
        await eventually(lambda: working(service, "generation/0"))

        await other.post(COMPLETIONS, completion(stream=True, max_tokens=300))
        answer = await other.answer()

        assert answer.text == reference_text(encoded("hello"), 5, 300)
        await all_at_rest(service, ingress)
        stuck.read_on()
        assert not (await stuck.rest()).endswith(b"\r\n0\r\n\r\n"), "it was cut, not finished"


async def test_more_connections_than_the_limit_are_turned_away_and_probes_are_not() -> None:
    options = {"max_connections": 2}
    async with disaggregated(ingress=options, **STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as first, connected(ingress) as second:
            for one in (first, second):
                await one.post(COMPLETIONS, completion(stream=True, max_tokens=300))
                await one.head()

            answer = await fetch(ingress, COMPLETIONS, completion())
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["connection"] == "close"
            for probe in ("/live", "/health", "/ready"):
                assert (await fetch(ingress, probe)).status == 200
            counts = (await fetch(ingress, "/metrics")).body.decode()
            assert 'understudy_http_connections{node="ingress/0"} 3' in counts
            assert 'understudy_http_connections_over_limit_total{node="ingress/0"} 5' in counts

            for one in (first, second):
                while await one.chunk():
                    pass
        await all_at_rest(service, ingress)
        assert (await fetch(ingress, COMPLETIONS, completion())).status == 200


async def test_more_requests_than_the_limit_are_turned_away() -> None:
    options = {"max_requests": 1}
    async with disaggregated(ingress=options, **STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as first:
            await first.post(COMPLETIONS, completion(stream=True, **ENDLESS))
            await first.head()

            answer = await fetch(ingress, COMPLETIONS, completion())
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1

            first.abort()
        await all_at_rest(service, ingress)
        assert (await fetch(ingress, COMPLETIONS, completion())).status == 200


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_takes_too_long_ends_in_an_error(*, stream: bool) -> None:
    options = {"request_timeout_s": 0.1}
    async with disaggregated(ingress=options, **STEPS_OF_2_MS) as (service, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion(stream=stream, **ENDLESS))

        if stream:
            assert answer.status == 200
            *_, error, done = answer.events
            assert done == "[DONE]"
        else:
            assert answer.status == 504
            error = answer.json
        assert error["error"]["code"] == "timeout"
        await all_at_rest(service, ingress)


async def test_an_ingress_that_drains_takes_no_connection_and_finishes_what_is_open() -> None:
    async with disaggregated(**STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(stream=True, max_tokens=600))
            await connection.head()
            drained = asyncio.create_task(service.nodes["ingress/0"].drain())
            await eventually(lambda: not ingress._server.listening)

            with pytest.raises(OSError, match=r"(?i)connect"):
                await fetch(ingress, "/live")
            assert not drained.done()
            body = b""
            while chunk := await connection.chunk():
                body += chunk
            await asyncio.wait_for(drained, 10)

        assert Answer(200, {}, body).text == reference_text(encoded("hello"), 5, 600)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_ingress_that_stops_says_so_to_those_who_still_wait(*, stream: bool) -> None:
    async with disaggregated(**STEPS_OF_2_MS) as (service, ingress):
        async with connected(ingress) as connection:
            await connection.post(COMPLETIONS, completion(stream=stream, **ENDLESS))
            await eventually(lambda: working(service, "generation/0"))
            stopped = asyncio.create_task(service.nodes["ingress/0"].stop())
            answer = await connection.answer()
            await asyncio.wait_for(stopped, 10)

        error = answer.events[-2] if stream else answer.json
        assert answer.status == (200 if stream else 503)
        assert error["error"]["code"] == "unavailable"
        for name in ("context/0", "generation/0"):
            await eventually(lambda: service.at_rest(name))  # noqa: B023 - awaited here and now


async def test_a_client_that_takes_nothing_for_too_long_is_taken_to_be_gone() -> None:
    options = {"client_timeout_s": 1.0, "max_unsent_bytes": 1 << 30}
    async with (
        disaggregated(ingress=options, **STEPS_OF_2_MS) as (service, ingress),
        connected(ingress) as stuck,
    ):
        await stuck.post(COMPLETIONS, completion(stream=True, n=16, **ENDLESS))
        await stuck.head()
        stuck.stop_reading()

        await all_at_rest(service, ingress)
        stuck.read_on()


async def test_an_ingress_shares_its_port_with_its_successor_and_with_nobody_else() -> None:
    async with disaggregated() as (service, ingress):
        assert ingress._server.url is not None
        port = int(ingress._server.url.rpartition(":")[2])

        successor = await service.start_ingress(1, port=port)
        await service.nodes["ingress/0"].drain()
        answer = await fetch(successor, COMPLETIONS, completion(max_tokens=20))
        assert answer.text == reference_text(encoded("hello"), 5, 20)

        async with empty() as other:
            with pytest.raises(AddressInUse, match="in use by another program"):
                await other.start_ingress(port=port)
