"""Items: messages, calls, what came of calls, and thoughts.

Clients write them loosely (a message may be without its type, its content a string); as they are
kept and given back they are complete, each with an id of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from actors.ingress.openai.errors import bad_field, missing_field, unsupported

T = TypeVar("T")
Json = dict[str, Any]
Role = Literal["user", "assistant", "system", "developer"]
TEXT_PARTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
}
"""The types of items there are, and how their ids begin."""


class Part(msgspec.Struct, omit_defaults=True):
    """A piece of content, as far as it is read."""

    type: str
    text: str | None = None
    refusal: str | None = None


Content = str | list[Part]


class InputItem(msgspec.Struct, omit_defaults=True):
    """One item as a client sends it. Which fields it needs depends on its type."""

    type: str | None = None
    id: str | None = None
    role: Role | None = None
    content: Content | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: Content | None = None
    summary: list[Part] | None = None


def new_item_id(kind: str) -> str:
    return f"{PREFIXES[kind]}_{secrets.token_hex(16)}"


def completed(items: str | Sequence[InputItem]) -> list[Json]:
    """The items of a request in their complete form. Raises ApiError, which says where."""
    if isinstance(items, str):
        items = [InputItem(role="user", content=items)]
    return [_complete(item, f"input[{index}]") for index, item in enumerate(items)]


def _complete(item: InputItem, where: str) -> Json:
    kind = item.type or "message"
    if kind not in PREFIXES:
        raise unsupported(
            f"{where}.type",
            f"Items of type '{kind}' are not supported by this server; "
            f"{', '.join(sorted(PREFIXES))} are.",
        )
    head: Json = {"id": item.id or new_item_id(kind), "type": kind}
    match kind:
        case "message":
            role = _given(item.role, f"{where}.role")
            content = _needed(item.content, f"{where}.content")
            part: Json = {"type": "input_text", "text": content}
            if role == "assistant":
                part = {"type": "output_text", "text": content, "annotations": []}
            return {**head, "status": "completed", "role": role, "content": [part]}
        case "function_call":
            return {
                **head,
                "status": "completed",
                "call_id": _given(item.call_id, f"{where}.call_id"),
                "name": _given(item.name, f"{where}.name"),
                "arguments": _given(item.arguments, f"{where}.arguments"),
            }
        case "function_call_output":
            return {
                **head,
                "status": "completed",
                "call_id": _given(item.call_id, f"{where}.call_id"),
                "output": _needed(item.output, f"{where}.output"),
            }
        case _:
            thought = _text("" if item.content is None else item.content, f"{where}.content")
            parts = [{"type": "reasoning_text", "text": thought}] if thought else []
            summary = _text("" if item.summary is None else item.summary, f"{where}.summary")
            said = [{"type": "summary_text", "text": summary}] if summary else []
            return {**head, "summary": said, "content": parts}


def _given(value: T | None, where: str) -> T:
    if value is None:
        raise missing_field(where)
    return value


def _needed(content: Content | None, where: str) -> str:
    if content is None:
        raise missing_field(where)
    return _text(content, where)


def _text(content: Content, where: str) -> str:
    if isinstance(content, str):
        return content
    return "".join(_text_of(part, f"{where}[{index}]") for index, part in enumerate(content))


def _text_of(part: Part, where: str) -> str:
    if part.type == "refusal":
        return _given(part.refusal, f"{where}.refusal")
    if part.type not in TEXT_PARTS:
        raise unsupported(
            f"{where}.type",
            f"Content of type '{part.type}' is not supported by this server; only text is.",
        )
    return _given(part.text, f"{where}.text")


def messages_of(instructions: str | None, items: Iterable[Json]) -> list[Json]:
    """Chat messages for the model's template, from complete items. Raises ApiError when there is
    none.

    What an assistant thinks, says and calls in a row is one message.
    """
    messages: list[Json] = []
    if instructions:
        messages.append({"role": "system", "content": instructions})
    turn: Json | None = None
    """The assistant's message that is being put together."""
    for item in items:
        match item["type"]:
            case "message" if item["role"] != "assistant":
                messages.append({"role": item["role"], "content": text_of(item)})
                turn = None
            case "function_call_output":
                told = {"role": "tool", "tool_call_id": item["call_id"], "content": item["output"]}
                messages.append(told)
                turn = None
            case kind:
                # A second text, or a thought after a text or a call, begins another message.
                said = turn is not None and (turn["content"] or "tool_calls" in turn)
                if turn is None or (said and kind != "function_call"):
                    turn = {"role": "assistant", "content": ""}
                    messages.append(turn)
                _add(turn, item)
    if not messages:
        raise missing_field("input")
    return messages


def _add(turn: Json, item: Json) -> None:
    match item["type"]:
        case "message":
            turn["content"] += text_of(item)
        case "reasoning":
            turn["reasoning_content"] = turn.get("reasoning_content", "") + text_of(item)
        case _:
            function = {"name": item["name"], "arguments": item["arguments"]}
            call = {"id": item["call_id"], "type": "function", "function": function}
            turn.setdefault("tool_calls", []).append(call)


def text_of(item: Json) -> str:
    """All text of a complete item's content."""
    return "".join(part.get("text", "") for part in item["content"])


def check_calls(items: Iterable[Json]) -> None:
    """Raises ApiError for an output whose call is nowhere before it: the model would not know what
    it answers."""
    known: set[str] = set()
    for item in items:
        if item["type"] == "function_call":
            known.add(item["call_id"])
        elif item["type"] == "function_call_output" and item["call_id"] not in known:
            raise bad_field(
                "input",
                f"No tool call found for function call output with call_id '{item['call_id']}'.",
            )
