"""Items, and the events that tell of them: put together again they are the same."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from actors.ingress.openai.responses_api.events import Outline

EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
SAYINGS = st.lists(
    st.tuples(st.sampled_from(["message", "reasoning", "call", "arguments"]), st.text(max_size=5)),
    max_size=12,
)


def events_of(data: bytes) -> list[dict[str, Any]]:
    """Parsed; the name of each is that of its event line."""
    found = []
    for block in data.decode().split("\n\n")[:-1]:
        name, body = block.split("\n", 1)
        event = json.loads(body.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As a client does, from deltas alone but for what each item begins with."""
    items: list[dict[str, Any]] = []
    for event in events:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(items)
                items.append(event["item"])
            case "content_part.added":
                items[event["output_index"]]["content"].append(event["part"])
            case "output_text.delta" | "reasoning_text.delta":
                part = items[event["output_index"]]["content"][event["content_index"]]
                part["text"] += event["delta"]
            case "function_call_arguments.delta":
                items[event["output_index"]]["arguments"] += event["delta"]
            case "output_item.done":
                items[event["output_index"]]["status"] = event["item"]["status"]
                assert items[event["output_index"]] == event["item"]
            case _:
                pass
    return items


@given(SAYINGS)
def test_deltas_add_up_to_the_items(sayings: list[tuple[str, str]]) -> None:
    sent: list[bytes] = []
    followed, silent = Outline(sent.append), Outline(None)
    for outline in (followed, silent):
        calling = False
        for kind, text in sayings:
            if kind == "call":
                outline.call("call_1", "time")
                calling = True
            elif kind == "arguments":
                if calling:
                    outline.arguments(text)
            else:
                outline.say(kind, text)  # type: ignore[arg-type]  # one of the two
                calling = False
        outline.close("completed")

    events = events_of(b"".join(sent))
    assert put_together(events) == followed.items
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert [without_id(item) for item in followed.items] == [
        without_id(item) for item in silent.items
    ]
    for event in events:
        EVENT.validate_python(event)


def without_id(item: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name != "id"}


def test_what_is_under_way_is_said_as_far_as_it_has_come() -> None:
    outline = Outline(None)
    outline.say("message", "half")

    [item] = outline.said

    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "half")
    assert outline.items == []
