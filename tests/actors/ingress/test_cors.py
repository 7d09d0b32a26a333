"""What browsers ask before, and with, a request of another origin's page."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from actors.access.keyfile import KeyFile, write
from actors.ingress.actor import Ingress
from actors.ingress.options import IngressOptions
from tests.actors.ingress.clients import COMPLETIONS, Answer, completion, connected
from tests.service import aggregated

PAGE = "https://chat.example.org"
ALLOW = "access-control-allow-origin"


async def ask(
    ingress: Ingress, method: str, path: str, body: object = None, **headers: str
) -> Answer:
    raw = b"" if body is None else json.dumps(body).encode()
    fields = {"Host": "x", "Content-Length": str(len(raw)), **headers}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    async with connected(ingress) as connection:
        await connection.send(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
        status, answered = await connection.head()
        if status == 204:
            return Answer(status, answered, b"")
        body_bytes = b""
        if answered.get("transfer-encoding") == "chunked":
            while data := await connection.chunk():
                body_bytes += data
        return Answer(status, answered, body_bytes)


async def preflight(ingress: Ingress, origin: str, path: str = COMPLETIONS) -> Answer:
    return await ask(
        ingress,
        "OPTIONS",
        path,
        Origin=origin,
        Access_Control_Request_Method="POST",
        Access_Control_Request_Headers="authorization,content-type",
    )


async def test_a_listed_origin_may_ask_and_read_even_errors_and_streams(tmp_path: Path) -> None:
    write(tmp_path / "keys", KeyFile())  # nobody has a key: a browser asks without one anyway
    options = {"cors_origins": [PAGE], "keys": str(tmp_path / "keys")}
    async with aggregated(ingress=options) as (_, ingress):
        before = await preflight(ingress, PAGE)
        error = await ask(ingress, "POST", COMPLETIONS, completion(), Origin=PAGE)
    async with aggregated(ingress={"cors_origins": [PAGE]}) as (_, ingress):
        streamed = await ask(ingress, "POST", COMPLETIONS, completion(stream=True), Origin=PAGE)

    assert (before.status, before.headers[ALLOW]) == (204, PAGE)
    assert before.headers["access-control-allow-methods"] == "POST"
    assert before.headers["access-control-allow-headers"] == "authorization,content-type"
    assert before.headers["vary"] == "Origin"
    assert "content-length" not in before.headers
    assert (error.status, error.headers[ALLOW]) == (401, PAGE)
    assert (streamed.status, streamed.headers[ALLOW]) == (200, PAGE)
    assert "x-ratelimit-remaining-tokens" in streamed.headers["access-control-expose-headers"]


async def test_another_origin_is_refused_and_who_is_no_browser_is_not() -> None:
    async with aggregated(ingress={"cors_origins": [PAGE]}) as (_, ingress):
        before = await preflight(ingress, "https://evil.example.org")
        without = await ask(
            ingress, "POST", COMPLETIONS, completion(), Origin="https://evil.example.org"
        )
        plain = await ask(ingress, "POST", COMPLETIONS, completion())
        unknown = await preflight(ingress, PAGE, "/v1/nothing")

    assert (before.status, ALLOW in before.headers) == (403, False)
    assert (without.status, ALLOW in without.headers) == (200, False)
    assert (plain.status, plain.headers["vary"]) == (200, "Origin")
    assert unknown.status == 404


async def test_a_star_lets_every_origin_in() -> None:
    async with aggregated(ingress={"cors_origins": ["*"]}) as (_, ingress):
        before = await preflight(ingress, "null")
        answer = await ask(ingress, "POST", COMPLETIONS, completion(), Origin=PAGE)

    assert (before.status, before.headers[ALLOW]) == (204, "*")
    assert (answer.headers[ALLOW], "vary" in answer.headers) == ("*", False)


async def test_it_is_off_unless_origins_are_named() -> None:
    async with aggregated() as (_, ingress):
        before = await preflight(ingress, PAGE)
        answer = await ask(ingress, "POST", COMPLETIONS, completion(), Origin=PAGE)

    assert before.status == 405
    assert answer.status == 200
    assert not {name for name in answer.headers if name.startswith("access-control")}


@pytest.mark.parametrize("origin", ["chat.example.org", "https://chat.example.org/", "https://"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(msgspec.ValidationError, match="is no origin"):
        msgspec.convert({"cors_origins": [origin]}, IngressOptions)


def test_a_key_without_its_certificate_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="tls_cert"):
        msgspec.convert({"tls_key": "key.pem"}, IngressOptions)
