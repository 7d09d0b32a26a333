"""What is said, as output items, and the events that tell of it while it is being said. Pure.

    response.created, response.in_progress
      response.output_item.added
        response.content_part.added
          response.output_text.delta...     (or reasoning_text, or function_call_arguments)
          response.output_text.done
        response.content_part.done
      response.output_item.done
    response.completed, or .incomplete, or .failed

All of a delta but its text is known when its item begins, so a token costs one JSON string and a
join, as for chat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from actors.ingress.openai.logprobs import ChatLogprobs
from actors.ingress.openai.responses_api.items import Json, new_item_id

ItemKind = Literal["message", "reasoning", "function_call"]
ItemStatus = Literal["completed", "incomplete"]
Emit = Callable[[bytes], None]

_encode = msgspec.json.Encoder().encode
_SPOKEN = {
    "message": "output_text",
    "reasoning": "reasoning_text",
    "function_call": "function_call_arguments",
}


class Outline:
    """The items of one answer, in the order in which they began."""

    def __init__(self, emit: Emit | None) -> None:
        """`emit` takes whole events; None when nobody follows."""
        self.items: list[Json] = []
        """The complete ones."""
        self._emit = emit
        self._sequence = 0
        self._kind: ItemKind | None = None
        self._item: Json = {}
        self._texts: list[str] = []
        self._logprobs: list[Any] = []
        self._before = b""

    def event(self, type: str, **fields: Any) -> None:  # noqa: A002 - the name it has in the body
        """Tell of something else than a delta."""
        if self._emit is None:
            return
        body = _encode({"type": type, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        self._emit(b"".join((b"event: ", type.encode(), b"\ndata: ", body, b"\n\n")))

    def say(
        self, kind: Literal["message", "reasoning"], text: str, logprobs: ChatLogprobs | None = None
    ) -> None:
        """The next text, of a new item unless one of the kind is under way."""
        if self._kind != kind:
            self.close("completed")
            self._begin(kind, {})
        self._delta(text, logprobs)

    def call(self, call_id: str, name: str) -> None:
        """A call begins."""
        self.close("completed")
        self._begin("function_call", {"call_id": call_id, "name": name, "arguments": ""})

    def arguments(self, text: str) -> None:
        """The next piece of the call's arguments."""
        self._delta(text, None)

    def close(self, status: ItemStatus) -> None:
        """The item under way, if there is one, is over."""
        kind = self._kind
        if kind is None:
            return
        self._kind = None
        text, item_id, index = "".join(self._texts), self._item["id"], len(self.items)
        where: Json = {"item_id": item_id, "output_index": index}
        if kind == "function_call":
            item = {**self._item, "status": status, "arguments": text}
            self.event(
                "response.function_call_arguments.done",
                **where,
                arguments=text,
                name=item["name"],
            )
        else:
            part = _part(kind, text, self._logprobs)
            where["content_index"] = 0
            more = {"logprobs": self._logprobs} if kind == "message" else {}
            self.event(f"response.{_SPOKEN[kind]}.done", **where, text=text, **more)
            self.event("response.content_part.done", **where, part=part)
            item = {**self._item, "status": status, "content": [part]}
        self.items.append(item)
        self.event("response.output_item.done", output_index=index, item=item)

    @property
    def said(self) -> list[Json]:
        """All items, the one under way as far as it has come."""
        if self._kind is None:
            return self.items
        text = "".join(self._texts)
        more: Json = {"arguments": text}
        if self._kind != "function_call":
            more = {"content": [_part(self._kind, text, self._logprobs)]}
        return [*self.items, {**self._item, "status": "incomplete", **more}]

    def _begin(self, kind: ItemKind, fields: Json) -> None:
        item_id, index = new_item_id(kind), len(self.items)
        item: Json = {"id": item_id, "type": kind, "status": "in_progress", **fields}
        if kind == "message":
            item |= {"role": "assistant", "content": []}
        elif kind == "reasoning":
            item |= {"summary": [], "content": []}
        self._kind, self._item = kind, item
        self._texts, self._logprobs = [], []
        self.event("response.output_item.added", output_index=index, item=item)
        where: Json = {"item_id": item_id, "output_index": index}
        if kind != "function_call":
            where["content_index"] = 0
            self.event("response.content_part.added", **where, part=_part(kind, "", []))
        name = f"response.{_SPOKEN[kind]}.delta"
        head = _encode({"type": name, **where})
        self._before = b"".join((b"event: ", name.encode(), b"\ndata: ", head[:-1], b',"delta":'))

    def _delta(self, text: str, logprobs: ChatLogprobs | None) -> None:
        self._texts.append(text)
        if logprobs is not None:
            self._logprobs += msgspec.to_builtins(logprobs.content)
        if self._emit is None:
            return
        after = b',"sequence_number":%d}\n\n' % self._sequence
        self._sequence += 1
        if self._kind == "message":
            entries = b"[]" if logprobs is None else _encode(logprobs.content)
            after = b',"logprobs":' + entries + after
        self._emit(b"".join((self._before, _encode(text), after)))


def _part(kind: ItemKind, text: str, logprobs: list[Any]) -> Json:
    if kind == "reasoning":
        return {"type": "reasoning_text", "text": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}
