"""The Responses API end to end, by the official client."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pydantic
import pytest
from openai import AsyncOpenAI
from openai._models import validate_type
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_item_list import ResponseItemList
from pydantic import TypeAdapter

from actors.access.keyfile import Key, KeyFile, hash_of, write
from actors.runtime.transport.buckets import BucketUnavailable
from actors.worker.actor import GenerationWorker
from tests.actors.ingress.clients import connected, fetch, official, request, url_of
from tests.actors.ingress.test_losses import STEPS_OF_2_MS, rest_of
from tests.actors.ingress.test_tools import CALL, MESSAGES, capitals
from tests.service import (
    MODEL,
    PATIENCE_S,
    aggregated,
    disaggregated,
    encoded_chat,
    eventually,
    reference_text,
)

PATH = "/v1/responses"
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
SEED = 5
WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"enum": ["Oslo", "Rome"]}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


def asked(text: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": text, "max_output_tokens": 10, "seed": SEED, **fields}


def messages(*said: str) -> bytes:
    """A conversation as token ids: user, assistant, user, ..."""
    roles = ("user", "assistant")
    return encoded_chat(
        *({"role": roles[index % 2], "content": text} for index, text in enumerate(said))
    )


async def test_a_response_has_the_model_s_tokens_and_the_official_form() -> None:
    async with disaggregated() as (_, ingress):
        answer = await fetch(ingress, PATH, asked(metadata={"a": "b"}, instructions="Be brief."))

    response: Response = validate_type(type_=Response, value=answer.json)
    prompt = encoded_chat(
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}
    )
    assert response.output_text == reference_text(prompt, SEED, 10)
    assert (response.status, response.metadata) == ("incomplete", {"a": "b"})
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.input_tokens == len(prompt) // 4
    assert response.usage.output_tokens == 10


async def test_the_events_come_in_their_order_and_add_up() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        body = asked(stream=True)
        answer = await fetch(ingress, PATH, body)
        stream = await client.responses.create(
            model=MODEL, input="hello", max_output_tokens=10, stream=True, extra_body={"seed": 5}
        )
        types = [event.type async for event in stream]

    blocks = answer.body.decode().split("\n\n")[:-1]
    events = [json.loads(block.split("data: ", 1)[1]) for block in blocks]
    for event in events:
        EVENT.validate_python(event)
    assert [event["type"] for event in events] == types
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert types == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * len(deltas),
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = validate_type(type_=Response, value=events[-1]["response"])
    assert "".join(deltas) == final.output_text == reference_text(messages("hello"), SEED, 10)


async def test_a_response_goes_on_with_the_one_before_wherever_it_was_made() -> None:
    async with aggregated() as (service, ingress):
        other = await service.start_ingress(1)
        first = (await fetch(ingress, PATH, asked("a", instructions="Be brief."))).json
        said = first["output"][0]["content"][0]["text"]
        second = (await fetch(other, PATH, asked("b", previous_response_id=first["id"]))).json
        more = second["output"][0]["content"][0]["text"]
        third = (await fetch(ingress, PATH, asked("c", previous_response_id=second["id"]))).json

    # Instructions are those of one response alone.
    assert more == reference_text(messages("a", said, "b"), SEED, 10)
    spoken = messages("a", said, "b", more, "c")
    assert third["output"][0]["content"][0]["text"] == reference_text(spoken, SEED, 10)
    assert third["previous_response_id"] == second["id"]


async def test_what_is_kept_can_be_read_and_deleted() -> None:
    async with aggregated() as (_, ingress), official(ingress) as client:
        words: Any = [{"role": "user", "content": text} for text in "abc"]
        made = await client.responses.create(model=MODEL, input=words, max_output_tokens=4)

        assert await client.responses.retrieve(made.id) == made
        listed = await client.responses.input_items.list(made.id, order="asc", limit=2)
        validate_type(type_=ResponseItemList, value=listed.to_dict())
        every: list[Any] = [item async for item in listed]
        backwards = [item async for item in await client.responses.input_items.list(made.id)]
        assert [item.to_dict()["content"][0]["text"] for item in every] == ["a", "b", "c"]
        assert backwards == every[::-1]
        with pytest.raises(openai.BadRequestError, match="background"):
            await client.responses.cancel(made.id)
        for path in (f"/{made.id}/more", f"/{made.id}/input_items/more"):
            with pytest.raises(openai.NotFoundError):
                await client.delete(f"/responses{path}", cast_to=object)
            with pytest.raises(openai.NotFoundError):
                await client.get(f"/responses{path}", cast_to=object)
        await client.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(made.id)
        with pytest.raises(openai.BadRequestError) as caught:
            await client.responses.create(model=MODEL, input="d", previous_response_id=made.id)
        assert caught.value.code == "previous_response_not_found"


async def test_a_prompt_is_counted_without_running_it() -> None:
    async with aggregated() as (_, ingress), official(ingress) as client:
        made = await client.responses.create(model=MODEL, input="a", max_output_tokens=4)
        told = await client.responses.input_tokens.count(
            model=MODEL, input="b", previous_response_id=made.id
        )
        after = await client.responses.create(
            model=MODEL, input="b", previous_response_id=made.id, max_output_tokens=1
        )

    assert after.usage is not None
    assert told.input_tokens == after.usage.input_tokens


async def test_who_only_wants_to_know_where_it_would_run_is_told() -> None:
    async with disaggregated() as (_, ingress), official(ingress) as client:
        headers = {"x-understudy-explain": "only"}
        raw = await client.responses.with_raw_response.create(
            model=MODEL, input="a", extra_headers=headers
        )

    assert "generation/0" in raw.http_response.text


async def test_what_shall_not_be_kept_is_not() -> None:
    async with aggregated(ingress={"max_response_bytes": 4096}) as (_, ingress):
        for fields in ({"store": False}, {"text": "x" * 5000}):
            body = asked(fields.pop("text", "a"), **fields)
            made = (await fetch(ingress, PATH, body)).json
            assert made["store"] is False
            assert (await fetch(ingress, f"{PATH}/{made['id']}")).status == 404


async def test_an_answer_comes_also_where_nothing_can_be_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def away(*_: object) -> None:
        raise BucketUnavailable("responses", "NATS has no JetStream")

    monkeypatch.setattr("actors.runtime.transport.local.LocalBucket.put", away)
    monkeypatch.setattr("actors.runtime.transport.local.LocalBucket.get", away)
    async with aggregated() as (_, ingress):
        made = (await fetch(ingress, PATH, asked())).json
        followed = await fetch(ingress, PATH, asked(previous_response_id=made["id"]))

    assert (made["status"], made["store"]) == ("incomplete", False)
    assert followed.status == 503
    assert "JetStream" in followed.json["error"]["message"]


async def test_a_response_belongs_to_the_key_that_made_it(tmp_path: Path) -> None:
    both = tuple(Key(name=name, hash=hash_of(f"sk-{name}")) for name in ("alice", "bob"))
    write(tmp_path / "k", KeyFile(keys=both))
    async with aggregated(ingress={"keys": str(tmp_path / "k")}) as (_, ingress):
        alice, bob = (
            AsyncOpenAI(
                base_url=f"{url_of(ingress)}/v1",
                api_key=f"sk-{name}",
                max_retries=0,
                timeout=PATIENCE_S,
            )
            for name in ("alice", "bob")
        )
        async with alice, bob:
            made = await alice.responses.create(model=MODEL, input="a", max_output_tokens=2)
            with pytest.raises(openai.NotFoundError):
                await bob.responses.retrieve(made.id)
            with pytest.raises(openai.NotFoundError):
                await bob.responses.delete(made.id)
            assert await alice.responses.retrieve(made.id) == made


async def test_a_stream_goes_on_when_its_worker_is_killed() -> None:
    async with (
        disaggregated(**STEPS_OF_2_MS) as (service, ingress),
        connected(ingress) as connection,
    ):
        await connection.send(request(PATH, asked(stream=True, max_output_tokens=60)))
        await connection.head()
        begun = await connection.chunk()
        await service.kill("generation/0")
        await service.start_worker(GenerationWorker, "generation", **STEPS_OF_2_MS)
        await eventually(lambda: ingress._counted["replays"] > 0)
        begun = (await rest_of(connection, begun)).body

    last = json.loads(begun.decode().rstrip().rsplit("data: ", 1)[1])
    text = last["response"]["output"][0]["content"][0]["text"]
    assert text == reference_text(messages("hello"), SEED, 60)


async def test_an_answer_that_breaks_off_ends_with_a_failed_response() -> None:
    policy = {"attempts": 1, "recovery_s": 0.05, "restart_s": 0.05, "retry_s": 0.02}
    async with (
        disaggregated(ingress={"replay": policy}, **STEPS_OF_2_MS) as (service, ingress),
        connected(ingress) as connection,
    ):
        await connection.send(request(PATH, asked(stream=True, max_output_tokens=600)))
        await connection.head()
        begun = await connection.chunk()
        await service.kill("generation/0")
        begun = (await rest_of(connection, begun)).body

    last = json.loads(begun.decode().rstrip().rsplit("data: ", 1)[1])
    EVENT.validate_python(last)
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize("stream", [False, True])
async def test_calls_and_their_outputs_go_round(*, stream: bool) -> None:
    body = {"guided_regex": CALL.replace("{", r"\{").replace("}", r"\}")}
    fields: dict[str, Any] = {
        "model": MODEL,
        "input": MESSAGES,
        "tools": [WEATHER],
        "temperature": 0,
    }
    async with capitals(tool_parser="hermes") as client:
        if stream:
            async with client.responses.stream(**fields, extra_body=body) as events:
                types = [event.type async for event in events]
                made: Any = await events.get_final_response()
            assert "response.function_call_arguments.delta" in types
            assert "response.function_call_arguments.done" in types
        else:
            made = await client.responses.create(**fields, extra_body=body)
        [call] = made.output
        told: Any = [{"type": "function_call_output", "call_id": call.call_id, "output": "-3"}]
        after: Any = await client.responses.create(
            model=MODEL, input=told, previous_response_id=made.id, max_output_tokens=5
        )

    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "weather",
        {"city": "Oslo"},
    )
    assert made.status == "completed"
    assert after.usage.input_tokens > made.usage.input_tokens


class Capital(pydantic.BaseModel):
    capital: str = pydantic.Field(pattern="^(Paris|Madrid)$")


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_parsed_into_the_client_s_type(*, stream: bool) -> None:
    fields: dict[str, Any] = {"model": MODEL, "input": MESSAGES, "temperature": 0}
    async with capitals() as client:
        if stream:
            async with client.responses.stream(**fields, text_format=Capital) as events:
                async for _ in events:
                    pass
                found = (await events.get_final_response()).output_parsed
        else:
            found = (await client.responses.parse(**fields, text_format=Capital)).output_parsed

    assert isinstance(found, Capital)


async def test_thoughts_are_items_of_their_own() -> None:
    guided = {"guided_regex": "Hm\\.</think>Paris\\."}
    async with capitals(reasoning_parser="deepseek_r1") as client:
        plain = await client.responses.create(model=MODEL, input=MESSAGES, temperature=0)
        held = await client.responses.create(
            model=MODEL, input=MESSAGES, temperature=0, extra_body=guided
        )

    # This model never ends its thoughts by itself; what is guided is not read for any.
    assert [item.type for item in plain.output] == ["reasoning"]
    assert plain.usage is not None
    assert 0 < plain.usage.output_tokens_details.reasoning_tokens <= plain.usage.output_tokens
    assert [item.type for item in held.output] == ["message"]


async def test_log_probabilities_come_with_the_text() -> None:
    async with aggregated() as (_, ingress):
        fields = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
        answer = await fetch(ingress, PATH, asked(**fields))
        streamed = await fetch(ingress, PATH, asked(stream=True, **fields))

    validate_type(type_=Response, value=answer.json)
    entries = answer.json["output"][0]["content"][0]["logprobs"]
    assert [len(entry["top_logprobs"]) for entry in entries] == [1] * 10
    assert b'"logprobs":[{"token"' in streamed.body


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].name"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"truncation": "auto"}, "truncation"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"previous_response_id": "../x"}, "previous_response_id"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
async def test_what_cannot_be_done_is_a_400_that_names_it(
    fields: dict[str, Any], param: str
) -> None:
    async with aggregated() as (_, ingress):
        answer = await fetch(ingress, PATH, {**asked(), **fields})

    assert (answer.status, answer.json["error"]["param"]) == (400, param)


async def test_a_page_that_there_is_not_is_a_400() -> None:
    async with aggregated() as (_, ingress):
        made = (await fetch(ingress, PATH, asked())).json
        for query in ("limit=0", "limit=x", "order=up", "after=msg_1"):
            answer = await fetch(ingress, f"{PATH}/{made['id']}/input_items?{query}")
            assert answer.status == 400
