"""Who comes in, over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from actors.access.keyfile import Key, KeyFile, KeyFileError, hash_of, write
from actors.ingress import gate
from actors.ingress.actor import Ingress
from actors.ingress.options import IngressOptions
from actors.runtime.metrics.registry import OTHER
from tests.actors.ingress.clients import (
    COMPLETIONS,
    Answer,
    completion,
    connected,
    fetch,
    url_of,
)
from tests.actors.ingress.test_tls import Authority
from tests.service import MODEL, PATIENCE_S, aggregated

SECRET = "sk-us-alice"


def keys(path: Path, **limits: Any) -> str:
    """A file with one key."""
    write(path, KeyFile(keys=(Key(name="alice", hash=hash_of(SECRET), **limits),)))
    return str(path)


async def ask(ingress: Ingress, secret: str = SECRET, **fields: Any) -> Answer:
    return await send(ingress, "/v1/completions", completion(**fields), secret)


async def send(ingress: Ingress, path: str, fields: Any, secret: str = SECRET) -> Answer:
    body = json.dumps(fields).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    async with connected(ingress) as connection:
        await connection.send(head.encode() + body)
        return await connection.answer()


@asynccontextmanager
async def guarded(path: Path, **limits: Any) -> AsyncIterator[Ingress]:
    async with aggregated(ingress={"keys": keys(path, **limits)}) as (_, ingress):
        yield ingress


async def test_only_who_has_a_key_comes_in(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k") as ingress:
        without = await fetch(ingress, "/v1/models")
        wrong = await ask(ingress, "sk-us-mallory")
        right = await ask(ingress)

    assert (without.status, without.json["error"]["code"]) == (401, "missing_api_key")
    assert without.headers["www-authenticate"] == "Bearer"
    assert (wrong.status, wrong.json["error"]["code"]) == (401, "invalid_api_key")
    assert right.status == 200


def heading(path: str, *fields: str) -> bytes:
    """The head of a request whose body is as large as may be."""
    size = IngressOptions().max_body_bytes
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *fields, "", "")
    return "\r\n".join(lines).encode()


@pytest.mark.parametrize("path", [COMPLETIONS, "/live", "/nowhere"])
async def test_a_stranger_is_refused_before_its_body(tmp_path: Path, path: str) -> None:
    options = {"keys": keys(tmp_path / "k"), "cors_origins": ["*"]}
    async with aggregated(ingress=options) as (_, ingress):
        async with connected(ingress) as connection:
            await connection.send(
                heading(path, "Authorization: Bearer wrong", "Origin: https://a.example")
            )
            answer = await connection.answer()
            assert await connection.rest() == b""
        route = OTHER if path == "/nowhere" else path
        assert ingress.measures.http.labels(route, "401").value == 1

    assert (answer.status, answer.json["error"]["code"]) == (401, "invalid_api_key")
    assert answer.headers["connection"] == "close"
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["access-control-allow-origin"] == "*"


async def test_leave_to_send_a_body_is_for_who_has_a_key(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k") as ingress:
        async with connected(ingress) as connection:
            await connection.send(heading(COMPLETIONS, "Expect: 100-continue"))
            assert (await connection.answer()).status == 401
        async with connected(ingress) as connection:
            key = f"Authorization: Bearer {SECRET}"
            await connection.send(heading(COMPLETIONS, "Expect: 100-continue", key))
            assert await connection.head() == (100, {})


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
async def test_a_stranger_that_sends_much_still_reads_why_it_may_not(
    tmp_path: Path, *, secured: bool
) -> None:
    authority = Authority()
    options = {"keys": keys(tmp_path / "k"), **(authority.issue(tmp_path) if secured else {})}
    async with (
        aggregated(ingress=options) as (_, ingress),
        DefaultAsyncHttpxClient(verify=authority.trust) as http,
        AsyncOpenAI(
            base_url=f"{url_of(ingress)}/v1",
            api_key="wrong",
            max_retries=0,
            timeout=PATIENCE_S,
            http_client=http,
        ) as client,
    ):
        with pytest.raises(openai.AuthenticationError, match="Incorrect API key"):
            await client.completions.create(model=MODEL, prompt="a" * 4_000_000)


async def test_probes_and_the_page_need_no_key_and_metrics_do(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k") as ingress:
        for path in ("/", "/live", "/ready", "/health"):
            assert (await fetch(ingress, path)).status == 200, path
        assert (await fetch(ingress, "/metrics")).status == 401


async def test_the_official_client_sees_the_errors_it_knows(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k", requests_per_minute=1, models=(MODEL,)) as ingress:

        def client(secret: str) -> AsyncOpenAI:
            url = f"{url_of(ingress)}/v1"
            return AsyncOpenAI(base_url=url, api_key=secret, max_retries=0, timeout=PATIENCE_S)

        async with client("wrong") as stranger, client(SECRET) as alice:
            with pytest.raises(openai.AuthenticationError):
                await stranger.models.list()
            await alice.completions.create(model=MODEL, prompt="a", max_tokens=2)
            with pytest.raises(openai.RateLimitError) as refused:
                await alice.completions.create(model=MODEL, prompt="a", max_tokens=2)

    headers = refused.value.response.headers
    assert 1 <= int(headers["retry-after"]) <= 60
    assert headers["x-ratelimit-limit-requests"] == "1"
    assert headers["x-ratelimit-remaining-requests"] == "0"


async def test_a_key_is_for_the_models_it_names(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k", models=("another",)) as ingress:
        answer = await ask(ingress)

    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_allowed")


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/tokenize", {"prompt": "a"}),
        ("/detokenize", {"tokens": [1]}),
        ("/v1/responses/input_tokens", {"input": "a"}),
    ],
)
async def test_a_key_for_other_models_learns_nothing_of_this_one(
    tmp_path: Path, path: str, fields: dict[str, Any]
) -> None:
    async with guarded(tmp_path / "k", models=("another",)) as ingress:
        answer = await send(ingress, path, {"model": MODEL, **fields})

    assert (answer.status, answer.json["error"]["code"]) == (403, "model_not_allowed")


async def test_prompt_and_answer_are_charged_streamed_or_not(tmp_path: Path) -> None:
    limit = 100
    async with guarded(tmp_path / "k", tokens_per_minute=limit) as ingress:
        first = await ask(ingress)
        took = first.json["usage"]["total_tokens"]
        second = await ask(ingress, stream=True)
        third = await ask(ingress)

    left = [int(one.headers["x-ratelimit-remaining-tokens"]) for one in (first, second, third)]
    # So few come back in a minute that none has yet.
    assert left == [limit, limit - took, limit - 2 * took]


async def test_a_prompt_is_charged_once_however_many_answers_it_has(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k", tokens_per_minute=1000) as ingress:
        first = await ask(ingress, n=3)
        second = await ask(ingress)

    left = [int(one.headers["x-ratelimit-remaining-tokens"]) for one in (first, second)]
    assert left == [1000, 1000 - first.json["usage"]["total_tokens"]]


async def test_a_spent_budget_is_a_quota_error(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k", tokens_per_day=1) as ingress:
        assert (await ask(ingress)).status == 200
        answer = await ask(ingress)

    assert (answer.status, answer.json["error"]["code"]) == (429, "insufficient_quota")


async def test_a_changed_file_counts_without_a_restart_and_a_broken_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "LOOK_S", 0.0)
    path = tmp_path / "k"
    async with guarded(path) as ingress:
        assert (await ask(ingress)).status == 200
        path.write_text("{")
        assert (await ask(ingress)).status == 200
        path.unlink()
        assert (await ask(ingress)).status == 200
        write(path, KeyFile())
        assert (await ask(ingress)).status == 401


async def test_a_key_that_has_expired_is_refused(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k", expires=1.0) as ingress:
        answer = await ask(ingress)

    assert answer.json["error"]["code"] == "expired_api_key"


async def test_an_ingress_without_its_file_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(KeyFileError, match="nowhere"):
        async with aggregated(ingress={"keys": str(tmp_path / "nowhere")}):
            pass
