"""Tokens of a text and back over HTTP, and the paths that are not served."""

from __future__ import annotations

from typing import Any

import pytest

from actors.ingress.http import NOT_SERVED
from actors.text.tokenizer import unpacked
from tests.actors.ingress.clients import CHAT, fetch
from tests.service import MODEL, aggregated, encoded, encoded_chat

HELLO: Any = [{"role": "user", "content": "hello"}]


async def test_a_text_and_a_chat_become_the_tokens_that_would_be_computed() -> None:
    async with aggregated() as (_, ingress):
        text = {"model": MODEL, "prompt": "hello there", "return_token_strs": True}
        one = (await fetch(ingress, "/tokenize", text)).json
        two = (await fetch(ingress, "/tokenize", {"model": MODEL, "messages": HELLO})).json
        back = await fetch(ingress, "/detokenize", {"model": MODEL, "tokens": two["tokens"]})
        again = await fetch(ingress, "/tokenize", {"model": MODEL, **back.json})

    assert one["tokens"] == unpacked(encoded("hello there"))
    assert one["count"] == len(one["tokens"]) == len(one["token_strs"])
    assert one["max_model_len"] > 0
    assert two["tokens"] == unpacked(encoded_chat(*HELLO))
    assert two["tokens"] == again.json["tokens"][-len(two["tokens"]) :]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/tokenize", {}, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": HELLO}, "prompt"),
        ("/tokenize", {"prompt": "\ud800"}, "prompt"),
        ("/tokenize", {"messages": [{"role": "nobody", "content": "a"}]}, "messages[0].role"),
        ("/tokenize", {"messages": [{"role": "user"}]}, "messages[0].content"),
        ("/tokenize", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "text"),
        ("/detokenize", {"tokens": [10**9]}, "tokens"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]"),
        ("/detokenize", {}, "tokens"),
    ],
)
async def test_what_cannot_be_read_is_a_400(path: str, body: Any, param: str) -> None:
    async with aggregated() as (_, ingress):
        answer = await fetch(ingress, path, {"model": MODEL, **body})
    assert answer.status == 400
    blamed = answer.json["error"]["param"]
    assert blamed in {param, param.replace("[0]", ""), None} or blamed.endswith(f".{param}")


async def test_a_path_that_is_not_served_says_so() -> None:
    async with aggregated() as (_, ingress):
        for name in NOT_SERVED:
            answer = await fetch(ingress, f"/v1/{name}", {"model": MODEL, "input": "a"})
            assert (answer.status, answer.json["error"]["code"]) == (404, "not_served")


async def test_unknown_fields_are_refused_where_the_topology_says_so() -> None:
    body = {"model": MODEL, "messages": HELLO, "max_tokens": 1, "nvext": {}}
    async with aggregated(ingress={"unknown_fields": "refuse"}) as (_, ingress):
        refused = await fetch(ingress, CHAT, body)
        del body["nvext"]
        taken = await fetch(ingress, CHAT, {**body, "store": True})
    assert (refused.status, refused.json["error"]["param"]) == (400, "nvext")
    assert taken.status == 200
