"""Server-sent events of a streamed answer.

All of a chunk but its text is known when the stream begins. So each choice keeps the bytes before
and after the text, and a token costs one JSON string and two joins.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from actors.ingress.openai.errors import ApiError
from actors.ingress.openai.logprobs import ChatLogprobs, CompletionLogprobs
from actors.ingress.openai.responses import FinishReason, Usage
from actors.text.answers.parts import CallArguments, CallBegin, Content, Part, Reasoning

DONE = b"data: [DONE]\n\n"
"""Ends every stream that was not cut off."""

_DATA = b"data: "
_END = b"\n\n"

_encode = msgspec.json.Encoder().encode


def error_event(error: ApiError) -> bytes:
    """Tells a client whose answer has begun that it ends here; its status was sent long ago. The
    official clients raise on it. `DONE` may follow.
    """
    return _DATA + error.body() + _END


def _call(head: dict[str, Any], function: dict[str, str]) -> dict[str, Any]:
    return {"tool_calls": [{**head, "function": function}]}


class _Stream(ABC):
    """The events of one choice. The bytes returned are whole events, ready to be written."""

    _object: str

    def __init__(
        self,
        id: str,  # noqa: A002  # the name it has in the body
        created: int,
        model: str,
        *,
        index: int = 0,
        include_usage: bool = False,
        count: Callable[[], Usage | None] | None = None,
        system_fingerprint: str | None = None,
    ) -> None:
        """`created` in Unix seconds. With `include_usage` every chunk but the last has a usage of
        null, as the API promises; with `count` it has what that returns, None while nothing is
        known.
        """
        self._count = count
        head = _encode(
            {
                "id": id,
                "object": self._object,
                "created": created,
                "model": model,
                "system_fingerprint": system_fingerprint,
            }
        )
        self._event = _DATA + head[:-1] + b',"choices":['
        self._choice = self._event + b'{"index":%d,' % index
        self._close = (b'],"usage":null}' if include_usage else b"]}") + _END
        self._before, self._after = self._around_text(b"null")

    @property
    def around_content(self) -> tuple[bytes, bytes]:
        """What `content` without logprobs puts before and after the text, which is escaped as in
        a JSON string, its quotes left out."""
        return self._before + b'"', b'"' + self._after

    @abstractmethod
    def _around_text(self, logprobs: bytes) -> tuple[bytes, bytes]:
        """What goes before and after the JSON string of a content chunk."""

    def content(
        self, text: str, logprobs: ChatLogprobs | CompletionLogprobs | None = None
    ) -> bytes:
        """One chunk of text. Lone surrogates are not text and raise UnicodeEncodeError."""
        if self._count is not None:
            self._recount(self._count())
        if logprobs is None:
            return b"".join((self._before, _encode(text), self._after))
        before, after = self._around_text(_encode(logprobs))
        return b"".join((before, _encode(text), after))

    def _recount(self, usage: Usage | None) -> None:
        self._close = b"".join((b'],"usage":', _encode(usage), b"}", _END))
        self._before, self._after = self._around_text(b"null")

    @abstractmethod
    def finish(self, reason: FinishReason) -> bytes:
        """The choice's last chunk; it has no text."""

    def usage(self, usage: Usage) -> bytes:
        """The chunk with the counts of the whole request, after the last choice has finished.
        Only for a request that asked for it.
        """
        return b"".join((self._event, b'],"usage":', _encode(usage), b"}", _END))


class ChatStream(_Stream):
    """One choice of a streamed chat completion: `role`, then `content`..., then `finish`."""

    _object = "chat.completion.chunk"

    def _around_text(self, logprobs: bytes) -> tuple[bytes, bytes]:
        after = b'},"logprobs":' + logprobs + b',"finish_reason":null}' + self._close
        return self._choice + b'"delta":{"content":', after

    def role(self) -> bytes:
        """The first chunk: says who speaks, with no text yet."""
        if self._count is not None:
            self._recount(self._count())
        return b"".join(
            (
                self._choice,
                b'"delta":{"role":"assistant","content":"","refusal":null},',
                b'"logprobs":null,"finish_reason":null}',
                self._close,
            )
        )

    def part(self, part: Part, call_id: str = "") -> bytes:
        """One chunk with a part of an answer that was read; `call_id` goes with the begin of a
        call."""
        match part:
            case Content(text):
                return self.content(text)
            case Reasoning(text):
                delta: dict[str, Any] = {"reasoning_content": text}
            case CallBegin(call, name):
                function = {"name": name, "arguments": ""}
                delta = _call({"index": call, "id": call_id, "type": "function"}, function)
            case CallArguments(call, text):
                delta = _call({"index": call}, {"arguments": text})
        return self.delta(delta)

    def delta(self, delta: Mapping[str, Any], logprobs: ChatLogprobs | None = None) -> bytes:
        """One chunk with this delta."""
        if self._count is not None:
            self._recount(self._count())
        return b"".join(
            (
                self._choice,
                b'"delta":',
                _encode(delta),
                b',"logprobs":',
                _encode(logprobs),
                b',"finish_reason":null}',
                self._close,
            )
        )

    def finish(self, reason: FinishReason) -> bytes:
        if self._count is not None:
            self._recount(self._count())
        return b"".join(
            (
                self._choice,
                b'"delta":{},"logprobs":null,"finish_reason":',
                _encode(reason),
                b"}",
                self._close,
            )
        )


class CompletionStream(_Stream):
    """One choice of a streamed plain completion: `content`..., then `finish`."""

    _object = "text_completion"

    def _around_text(self, logprobs: bytes) -> tuple[bytes, bytes]:
        after = b',"logprobs":' + logprobs + b',"finish_reason":null}' + self._close
        return self._choice + b'"text":', after

    def finish(self, reason: FinishReason) -> bytes:
        if self._count is not None:
            self._recount(self._count())
        return b"".join(
            (
                self._choice,
                b'"text":"","logprobs":null,"finish_reason":',
                _encode(reason),
                b"}",
                self._close,
            )
        )
