"""Bodies of POST /v1/responses, from raw bytes to checked structs. Whatever is wrong raises
ApiError."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta

from actors.ingress.openai import fields
from actors.ingress.openai.catalogue import KNOWN_RESPONSES
from actors.ingress.openai.closing import closed
from actors.ingress.openai.decoding import Decoder, unknown_fields
from actors.ingress.openai.errors import bad_field, missing_field, unsupported
from actors.ingress.openai.responses_api.items import InputItem
from actors.ingress.openai.sampling_fields import SamplingFields
from actors.ingress.openai.structured import ANY_OBJECT, schema_grammar
from actors.ingress.openai.tools import (
    ChosenFunction,
    NamedChoice,
    ToolChoice,
    ToolName,
    Tools,
    read_tools,
)
from actors.messages.sampling import Grammar

MAX_ITEMS = 4096
MAX_METADATA = 16
LOGPROBS = "message.output_text.logprobs"
_NONE = msgspec.Raw(b"null")


class FunctionTool(msgspec.Struct, frozen=True):
    """A tool, flat as this API has it."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(msgspec.Struct, frozen=True):
    type: str
    name: ToolName | None = None


class TextFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    """The schema is followed whatever this says, and see `closing`."""


class TextConfig(msgspec.Struct, frozen=True):
    format: TextFormat | None = None
    verbosity: str | None = None
    """Without effect."""


class ReasoningConfig(msgspec.Struct, frozen=True):
    """Without effect: how much a model thinks is said in `chat_template_kwargs`."""

    effort: str | None = None
    summary: str | None = None


class ResponsesRequest(SamplingFields, kw_only=True):
    """A body of POST /v1/responses."""

    input: str | Annotated[list[InputItem], Meta(max_length=MAX_ITEMS)] | None = None
    instructions: str | None = None
    max_output_tokens: fields.TokenCount | None = None
    previous_response_id: Annotated[str, Meta(max_length=fields.MAX_NAME)] | None = None
    store: bool | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    top_logprobs: fields.TopLogprobs | None = None
    truncation: Literal["auto", "disabled"] | None = None
    metadata: (
        Annotated[
            dict[
                Annotated[str, Meta(max_length=64)],
                Annotated[str, Meta(max_length=512)],
            ],
            Meta(max_length=MAX_METADATA),
        ]
        | None
    ) = None
    service_tier: str | None = None
    max_tool_calls: int | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: msgspec.Raw = _NONE
    """JSON object, or null."""

    background: msgspec.Raw = _NONE
    background_options: msgspec.Raw = _NONE
    context_management: msgspec.Raw = _NONE
    conversation: msgspec.Raw = _NONE
    image: msgspec.Raw = _NONE
    moderation: msgspec.Raw = _NONE
    prompt: msgspec.Raw = _NONE

    logprobs: msgspec.Raw = _NONE
    max_completion_tokens: msgspec.Raw = _NONE
    max_tokens: msgspec.Raw = _NONE
    messages: msgspec.Raw = _NONE
    n: msgspec.Raw = _NONE

    @property
    def token_limit(self) -> int | None:
        return self.max_output_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        if self.top_logprobs or LOGPROBS in (self.include or ()):
            return self.top_logprobs or 0
        return None

    @property
    def usable_tools(self) -> Tools | None:
        """What the answer may call. Raises ApiError."""
        if not self.tools and self.tool_choice is None:
            return None
        raw = msgspec.Raw(msgspec.json.encode([_chat_tool(tool) for tool in self.tools or ()]))
        parallel = self.parallel_tool_calls is not False
        return read_tools(raw, _chat_choice(self.tool_choice), parallel=parallel)

    @property
    def grammar(self) -> Grammar | None:
        asked = super().grammar
        wanted = self._text_grammar
        tools = self.usable_tools
        forced = None if tools is None else tools.grammar
        found = [one for one in (wanted, asked, forced) if one is not None]
        if len(found) > 1:
            raise bad_field(
                found[0].param, f"'{found[0].param}' cannot go with '{found[1].param}'."
            )
        return found[0] if found else None

    @property
    def _text_grammar(self) -> Grammar | None:
        asked = None if self.text is None else self.text.format
        if asked is None or asked.type == "text":
            return None
        if asked.type == "json_object":
            return Grammar("json_schema", ANY_OBJECT, "text.format")
        if asked.name is None:
            raise missing_field("text.format.name")
        if asked.schema is None:
            raise missing_field("text.format.schema")
        return schema_grammar(closed(asked.schema), "text.format.schema")

    def check(self) -> Self:
        """What the decoder cannot say of single fields. Raises ApiError."""
        for name, (harmless, why) in REFUSED.items():
            value = getattr(self, name)
            if value is not _NONE and _ANYTHING.decode(value, within=name) not in harmless:
                raise unsupported(name, why)
        if self.truncation == "auto":
            raise unsupported("truncation", "'truncation' may be 'disabled' only.")
        if self.response_format is not None:
            raise unsupported("response_format", "Here it is 'text.format'.")
        if self.input is None and self.previous_response_id is None:
            raise missing_field("input")
        for index, tool in enumerate(self.tools or ()):
            _check_tool(tool, f"tools[{index}]")
        if isinstance(self.tool_choice, NamedFunction):
            _check_choice(self.tool_choice)
        if bytes(self.chat_template_kwargs)[:1] not in {b"{", b"n"}:
            raise bad_field("chat_template_kwargs", "'chat_template_kwargs' must be an object.")
        _ = self.grammar  # raises for what cannot be read
        self.check_limits()
        return self


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "background": ((None, False), "Responses are not made in the background: use 'stream'."),
    "background_options": ((None,), ""),
    "context_management": ((None, []), ""),
    "conversation": ((None,), "Use 'previous_response_id'."),
    "image": ((None,), ""),
    "moderation": ((None,), ""),
    "logprobs": ((None, False), "Here it is 'top_logprobs', or 'include'."),
    "max_completion_tokens": ((None,), "Here it is 'max_output_tokens'."),
    "max_tokens": ((None,), "Here it is 'max_output_tokens'."),
    "messages": ((None,), "Here it is 'input'."),
    "n": ((None, 1), "A response is one answer."),
    "prompt": ((None,), "Prompt templates are not kept here: use 'instructions'."),
}
"""Fields of this API, and of chat's, that would change the answer; the values that do not, and what
to say."""


def parse_responses(body: bytes, *, unknown: Literal["ignore", "refuse"]) -> ResponsesRequest:
    """Read a body of POST /v1/responses. Raises ApiError, and nothing else."""
    asked = _REQUEST.decode(body).check()
    if unknown == "refuse":
        for name in unknown_fields(body, ResponsesRequest):
            if name not in KNOWN_RESPONSES:
                raise bad_field(
                    name, f"Unrecognized request argument: '{name}'.", code="unknown_parameter"
                )
    return asked


def _check_tool(tool: FunctionTool, where: str) -> None:
    if tool.type != "function":
        raise unsupported(
            f"{where}.type",
            f"Tools of type '{tool.type}' are not supported by this server; only 'function' is.",
        )
    if tool.name is None:
        raise missing_field(f"{where}.name")


def _check_choice(choice: NamedFunction) -> None:
    if choice.type != "function":
        raise unsupported(
            "tool_choice.type",
            f"A choice of type '{choice.type}' is not supported; name a function.",
        )
    if choice.name is None:
        raise missing_field("tool_choice.name")


def _chat_tool(tool: FunctionTool) -> dict[str, Any]:
    said = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    function = {name: value for name, value in said.items() if value is not None}
    return {"type": "function", "function": function}


def _chat_choice(choice: str | NamedFunction | None) -> ToolChoice | None:
    if isinstance(choice, NamedFunction):
        return NamedChoice("function", ChosenFunction(choice.name or ""))
    return choice  # type: ignore[return-value]


_REQUEST = Decoder(ResponsesRequest)
_ANYTHING: Decoder[object] = Decoder(object)
