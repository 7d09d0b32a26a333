"""Where the text of a response goes."""

from __future__ import annotations

from collections.abc import Callable

from actors.ingress.openai.logprobs import ChatLogprobs, TokenBytes, chat_logprobs
from actors.ingress.openai.responses import FinishReason
from actors.ingress.openai.responses_api.events import Outline
from actors.ingress.openai.responses_api.items import Json, text_of
from actors.ingress.server.direct import Writes
from actors.ingress.sinks import EventSink, new_call_id
from actors.messages.sampling import Logprobs
from actors.text.answers.parts import CallArguments, CallBegin, Content, Part, Reasoning


class ResponseSink(EventSink):
    """The one answer of a response: its items, and their events if it streams."""

    def __init__(
        self,
        response: Json,
        token_bytes: TokenBytes,
        limit_bytes: int,
        overflow: Callable[[], None],
        writes: Writes,
        *,
        streams: bool,
    ) -> None:
        super().__init__(limit_bytes, overflow, writes)
        self._token_bytes = token_bytes
        self.outline = Outline(self._write if streams else None)
        self.reason: FinishReason = "stop"
        self.outline.event("response.created", response=response)
        self.outline.event("response.in_progress", response=response)

    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        del index  # there is one choice
        self.outline.say("message", text, self._format(logprobs))

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        del index
        outline = self.outline
        for part in parts:
            match part:
                case Content(text):
                    outline.say("message", text, self._format(logprobs))
                    logprobs = None
                case Reasoning(text):
                    outline.say("reasoning", text)
                case CallBegin(_, name):
                    outline.call(new_call_id(), name)
                case CallArguments(_, text):
                    outline.arguments(text)

    def finish(self, index: int, reason: FinishReason) -> None:
        del index
        self.reason = reason
        if not self.outline.said:
            self.outline.say("message", "")
        self.outline.close("incomplete" if reason == "length" else "completed")

    @property
    def thoughts(self) -> str:
        """Everything that the model has thought."""
        items = self.outline.items
        return "".join(text_of(item) for item in items if item["type"] == "reasoning")

    def _format(self, logprobs: list[Logprobs] | None) -> ChatLogprobs | None:
        return chat_logprobs(logprobs, self._token_bytes) if logprobs else None
