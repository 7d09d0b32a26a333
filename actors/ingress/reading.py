"""How the text of an answer is read: where it stops, and what in it is no plain text."""

from __future__ import annotations

from typing import Literal, cast

import msgspec

from actors.ingress.openai.errors import bad_field
from actors.ingress.openai.requests import ChatRequest, CompletionRequest
from actors.ingress.openai.responses_api.request import ResponsesRequest
from actors.messages.cards import WorkerCard
from actors.text.answers.names import ReasoningFamily, ToolFamily
from actors.text.answers.parser import AnswerParser, answer_parser, markers
from actors.text.stop_strings import StopAutomaton


class Reading(msgspec.Struct, frozen=True):
    """The same for every choice of a request."""

    stops: StopAutomaton | None = None
    skip_special_tokens: bool = True
    shown: tuple[str, ...] = ()
    """Special tokens that are text all the same."""
    reasoning: ReasoningFamily | None = None
    tools: ToolFamily | Literal["listed"] | None = None
    known: tuple[str, ...] = ()
    named: str | None = None
    max_calls: int | None = None

    def parser(self) -> AnswerParser | None:
        """For one choice; None when its text goes to the client as it is."""
        if self.reasoning is None and self.tools is None and self.named is None:
            return None
        return answer_parser(
            reasoning=self.reasoning,
            tools=self.tools,
            known=self.known,
            named=self.named,
            max_calls=self.max_calls,
        )


def reading_of(
    asked: ChatRequest | CompletionRequest | ResponsesRequest, card: WorkerCard
) -> Reading:
    """Raises ApiError when tools are offered to a model whose way to call them is not known."""
    reading = Reading(
        StopAutomaton(asked.stop_strings) if asked.stop_strings else None,
        asked.skip_special_tokens is not False,
    )
    if isinstance(asked, CompletionRequest):
        return reading
    tools = asked.usable_tools
    family: ToolFamily | Literal["listed"] | None = None
    # A guided answer has its form from the first token on: no thoughts come before it.
    reasoning = None if asked.grammar is not None else card.reasoning_parser
    if tools is not None and tools.choice == "required":
        family = "listed"
    elif tools is not None and tools.choice == "auto":
        if card.tool_parser is None:
            raise bad_field(
                "tool_choice",
                f"How '{asked.model}' calls tools is not configured (`tool_parser` of its "
                "workers), so 'tool_choice' cannot be 'auto'; 'required', a named tool and 'none' "
                "are possible.",
                code="unsupported_parameter",
            )
        family = cast("ToolFamily", card.tool_parser)
    if reasoning is None and tools is None:
        return reading
    thoughts = cast("ReasoningFamily | None", reasoning)
    return msgspec.structs.replace(
        reading,
        shown=markers(thoughts, None if family == "listed" else family),
        reasoning=thoughts,
        tools=family,
        known=() if tools is None else tools.names,
        named=None if tools is None else tools.named,
        max_calls=None if tools is None or tools.parallel else 1,
    )
