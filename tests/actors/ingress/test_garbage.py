"""What a client may send by mistake or on purpose: a clear 4xx, or a closed connection where HTTP
offers no more, and a service that serves the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from actors.ingress.actor import Ingress
from tests.actors.ingress.clients import (
    CHAT,
    COMPLETIONS,
    completion,
    connected,
    fetch,
    request,
)
from tests.service import MODEL, Service, disaggregated, encoded, eventually, reference_text

CHUNKED = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
SIZED = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: "


@asynccontextmanager
async def unharmed(
    *, ingress: dict[str, Any] | None = None, **engine: Any
) -> AsyncIterator[tuple[Service, Ingress]]:
    """A service that must serve as before when the test is done with it."""
    async with disaggregated(ingress=ingress, **engine) as (service, actor):
        yield service, actor
        assert (await fetch(actor, "/ready")).status == 200
        answer = await fetch(actor, COMPLETIONS, completion())
        assert answer.text == reference_text(encoded("hello"), 5, 8)
        assert not any(node._failure is None or node._failure.done() for node in _nodes(service))
        await eventually(lambda: service.at_rest("context/0") and service.at_rest("generation/0"))
        await eventually(lambda: not actor._exchanges and not actor._choices)


def _nodes(service: Service) -> list[Any]:
    return list(service.nodes.values())


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], **fields}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, b"", None),
        (COMPLETIONS, b"{", None),
        (COMPLETIONS, b"not json", None),
        (COMPLETIONS, b"[]", None),
        (COMPLETIONS, b"null", None),
        (COMPLETIONS, b'{"model": "\xff"}', None),
        (COMPLETIONS, b"[" * 100_000, None),
        (COMPLETIONS, b'{"a":' * 5000 + b"1" + b"}" * 5000, None),
        (COMPLETIONS, b'{"model": "m", "prompt": "\\ud800"}', None),
        (COMPLETIONS, {"model": MODEL}, "prompt"),
        (COMPLETIONS, {"prompt": "hello"}, "model"),
        (COMPLETIONS, completion(model=7), "model"),
        (COMPLETIONS, completion(7), "prompt"),
        (COMPLETIONS, completion([]), "prompt"),
        (COMPLETIONS, completion([1, "a"]), "prompt[1]"),
        (COMPLETIONS, completion([-1]), "prompt[0]"),
        (COMPLETIONS, completion([1, 2**32 - 1]), "prompt"),
        (COMPLETIONS, completion([1, 99_999], stream=True), "prompt"),
        (COMPLETIONS, completion(max_tokens=-1), "max_tokens"),
        (CHAT, chat(max_tokens=0), "max_tokens"),
        (COMPLETIONS, completion(max_tokens="many"), "max_tokens"),
        (COMPLETIONS, completion(temperature=-0.1), "temperature"),
        (COMPLETIONS, completion(n=0), "n"),
        (COMPLETIONS, completion(n=10_000), "n"),
        (COMPLETIONS, completion(stop=[""]), "stop[0]"),
        (COMPLETIONS, completion(seed=2**64), "seed"),
        (COMPLETIONS, completion("hello " * 100), "prompt"),
        (COMPLETIONS, completion("hello " * 100, stream=True), "prompt"),
        (CHAT, chat(messages=[]), "messages"),
        (CHAT, chat(messages="hello"), "messages"),
        (CHAT, chat(messages=[{"role": "nobody", "content": "a"}]), "messages[0].role"),
        (CHAT, chat(messages=[{"role": "user"}]), "messages[0].content"),
        (CHAT, chat(messages=[{"role": "user", "content": "hello " * 100}]), "messages"),
        (CHAT, chat(chat_template_kwargs={"messages": []}), "messages"),
        (CHAT, chat(tools=[{"type": "function"}]), "tools[0].function"),
    ],
)
async def test_a_bad_body_is_a_400_that_names_the_field(
    path: str, body: Any, param: str | None
) -> None:
    async with unharmed(max_context_tokens=100) as (_, ingress):
        answer = await fetch(ingress, path, body)

        assert answer.status == 400, answer
        assert answer.headers["content-type"].startswith("application/json")
        error = answer.json["error"]
        assert error["type"] == "invalid_request_error"
        assert error["param"] == param
        assert error["message"]


@pytest.mark.parametrize("depth", range(975, 1000, 3))
async def test_json_at_the_edge_of_too_deep_is_an_answer(depth: int) -> None:
    # Two rooms decode it on stacks of different height; neither may fall over the edge.
    async with unharmed() as (_, ingress):
        nested = b"[" * depth + b"]" * depth
        message = b'{"role": "user", "content": "a", "x": %b}'
        body = b'{"model": "test/simulated", "max_tokens": 1, "messages": [%b]%b}'
        in_arguments = b', "chat_template_kwargs": {"x": %b}' % nested
        for within in (body % (message % nested, b""), body % (message % b"1", in_arguments)):
            assert (await fetch(ingress, CHAT, within)).status in {200, 400}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/nothing", 404),
        ("GET", "/v1", 404),
        ("POST", "/v1/audio/speech", 404),
        ("GET", "/v1/models/%00%ff", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", COMPLETIONS, 405),
        ("DELETE", CHAT, 405),
        ("POST", "/v1/models", 405),
    ],
)
async def test_an_unknown_path_or_method_is_answered_in_the_api_s_form(
    method: str, path: str, status: int
) -> None:
    async with unharmed() as (_, ingress), connected(ingress) as connection:
        await connection.send(request(path, method=method))
        answer = await connection.answer()

        assert answer.status == status
        assert answer.json["error"]["message"]


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00" * 100 + b"\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /live HTTP/9.9\r\n\r\n",
        b"GET /live HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        SIZED + b"-5\r\n\r\n",
        SIZED + b"a\r\n\r\n",
        SIZED + b"5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"\r\nzz\r\n\r\n",
        CHUNKED + b"\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
        CHUNKED + b"\r\n-1\r\n\r\n",
    ],
)
async def test_what_is_no_http_gets_an_error_or_a_closed_connection(sent: bytes) -> None:
    async with unharmed() as (_, ingress), connected(ingress) as connection:
        await connection.send(sent)
        connection.end_input()
        answer = await connection.rest()

        assert not answer or answer.split(b" ", 2)[1] in {b"400", b"413", b"431"}, answer


async def test_a_body_that_is_not_what_its_encoding_says_is_a_400() -> None:
    async with unharmed() as (_, ingress), connected(ingress) as connection:
        await connection.send(SIZED + b"5\r\nContent-Encoding: gzip\r\n\r\nabcde")

        answer = await connection.answer()

        assert answer.status == 400
        assert "cannot be read" in answer.json["error"]["message"]


async def test_a_body_over_the_limit_is_refused_before_it_is_all_there() -> None:
    async with unharmed(ingress={"max_body_bytes": 5000}) as (_, ingress):
        async with connected(ingress) as connection:
            await connection.send(SIZED + b"1000000000\r\n\r\n")
            await connection.send(b"a" * 20_000)
            answer = await connection.answer()
        assert answer.status == 413
        assert "5000 bytes" in answer.json["error"]["message"]

        just_enough = completion()
        just_enough["user"] = "u" * (5000 - len(request("/", just_enough)))
        assert (await fetch(ingress, COMPLETIONS, just_enough)).status == 200


async def test_a_chunked_body_over_the_limit_is_refused() -> None:
    options = {"max_body_bytes": 5000}
    async with unharmed(ingress=options) as (_, ingress), connected(ingress) as connection:
        await connection.send(CHUNKED + b"\r\n")
        await connection.send(b"1000\r\n" + b"a" * 4096 + b"\r\n")
        await connection.send(b"1000\r\n" + b"a" * 4096 + b"\r\n0\r\n\r\n")

        assert (await connection.answer()).status == 413


async def test_a_body_that_does_not_come_in_time_is_a_408() -> None:
    options = {"body_timeout_s": 0.05}
    async with unharmed(ingress=options) as (_, ingress), connected(ingress) as connection:
        await connection.send(request(COMPLETIONS, completion())[:-5])

        answer = await connection.answer()

        assert answer.status == 408
        assert answer.json["error"]["code"] == "timeout"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/compl", b"GET /live HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_that_completes_no_request_is_closed(sent: bytes) -> None:
    options = {"header_timeout_s": 0.05}
    async with unharmed(ingress=options) as (_, ingress), connected(ingress) as connection:
        await connection.send(sent)

        assert await connection.rest() == b""


async def test_a_connection_that_goes_quiet_between_requests_is_closed() -> None:
    options = {"header_timeout_s": 0.05}
    async with unharmed(ingress=options) as (_, ingress), connected(ingress) as connection:
        await connection.send(request("/live"))
        assert (await connection.answer()).status == 200
        await connection.send(b"GET /li")

        assert await connection.rest() == b""


async def test_a_long_answer_is_not_cut_by_the_timeout_for_headers() -> None:
    # Long enough for a busy machine to send a request in.
    options = {"header_timeout_s": 0.25}
    # 20 steps of 50 ms each: four times the timeout.
    timing: dict[str, Any] = {
        "decode_ms": {"quadratic": 0, "linear": 0, "constant": 50},
        "speedup": 1,
    }
    async with unharmed(ingress=options, **timing) as (_, ingress):
        answer = await fetch(ingress, COMPLETIONS, completion(max_tokens=20, stream=True))

        assert answer.text == reference_text(encoded("hello"), 5, 20)


@pytest.mark.parametrize("cut_at", [1, 10, 60, 120])
async def test_a_client_that_leaves_in_the_middle_of_its_request_is_forgotten(cut_at: int) -> None:
    async with unharmed() as (_, ingress), connected(ingress) as connection:
        await connection.send(request(COMPLETIONS, completion())[:cut_at])
        connection.abort()


async def test_a_client_that_ends_its_input_after_the_request_is_not_answered_with_an_error() -> (
    None
):
    async with unharmed() as (_, ingress), connected(ingress) as connection:
        await connection.post(COMPLETIONS, completion(stream=True))
        connection.end_input()

        # Half-closed: HTTP lets a server answer, or take it for a client that has gone.
        sent = await connection.rest()
        assert not sent or sent.split(b" ", 2)[1] == b"200"
