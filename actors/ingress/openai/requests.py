"""Request bodies, from raw bytes to checked structs. Whatever is wrong raises ApiError.

Types and ranges are checked by msgspec while it decodes; what concerns several fields is checked
here. Messages stay raw JSON, to be read once more where the chat template is rendered; their
shape is checked all the same, so that a client hears of its mistake at once.
"""

from __future__ import annotations

import struct
from typing import Any, Self

import msgspec

from actors.ingress.openai import fields
from actors.ingress.openai.catalogue import KNOWN
from actors.ingress.openai.decoding import Decoder, unknown_fields
from actors.ingress.openai.errors import bad_field, missing_field, unsupported
from actors.ingress.openai.sampling_fields import SamplingFields
from actors.ingress.openai.tools import ToolChoice, Tools, read_tools
from actors.messages.sampling import Grammar, PromptWish

_NONE = msgspec.Raw(b"null")


class _NotServed(SamplingFields, kw_only=True):
    """Fields of this API and its usual extensions that would change the answer, and that this
    server does not serve. A request may have them null, or with the value that changes nothing."""

    prompt_logprobs: msgspec.Raw = _NONE
    truncate_prompt_tokens: msgspec.Raw = _NONE
    use_beam_search: msgspec.Raw = _NONE
    include_stop_str_in_output: msgspec.Raw = _NONE

    functions: msgspec.Raw = _NONE
    function_call: msgspec.Raw = _NONE
    modalities: msgspec.Raw = _NONE
    moderation: msgspec.Raw = _NONE
    web_search_options: msgspec.Raw = _NONE
    audio: msgspec.Raw = _NONE
    documents: msgspec.Raw = _NONE
    chat_template: msgspec.Raw = _NONE
    continue_final_message: msgspec.Raw = _NONE
    suffix: msgspec.Raw = _NONE


_NOT_SERVED = tuple(_NotServed.__annotations__)
HARMLESS: dict[str, tuple[object, ...]] = {
    "use_beam_search": (False,),
    "include_stop_str_in_output": (False,),
    "continue_final_message": (False,),
    "functions": ([],),
    "function_call": ("none",),
    "modalities": (["text"],),
    "suffix": ("",),
}


class GenerationRequest(_NotServed, kw_only=True):
    """What chat and plain completions have in common, under the names of the wire."""

    max_tokens: fields.TokenCount | None = None
    n: fields.Choices | None = None
    stream_options: fields.StreamOptions | None = None
    metadata: dict[str, Any] | None = None

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def candidates(self) -> int:
        """How many are computed for each prompt, of which the best `choices` are given."""
        return self.choices

    @property
    def counts_along(self) -> bool:
        """Whether every chunk of a stream has the counts of its choice so far."""
        options = self.stream_options
        return options is not None and bool(options.continuous_usage_stats)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def token_limit(self) -> int | None:
        """Tokens the client wants at most; None when it did not say."""
        return self.max_tokens

    def _check(self) -> Self:
        """What the decoder cannot say of single fields. Raises ApiError."""
        for name in _NOT_SERVED:
            value = getattr(self, name)
            if value is not _NONE:
                _check_harmless(name, value)
        if self.stream_options is not None and not self.stream:
            raise bad_field("stream_options", "'stream_options' needs 'stream' to be true.")
        _ = self.grammar  # raises for what cannot be read
        self.check_limits()
        return self


class ChatRequest(GenerationRequest, kw_only=True):
    """A body of POST /v1/chat/completions."""

    messages: msgspec.Raw
    """JSON array of messages: at least one, roles and text content checked. Other keys of a
    message (`name`, `tool_calls`, ...) are as the client sent them, JSON but otherwise unread."""
    max_completion_tokens: fields.TokenCount | None = None
    logprobs: bool | None = None
    top_logprobs: fields.TopLogprobs | None = None
    tools: msgspec.Raw = _NONE
    """JSON array, or null."""
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: msgspec.Raw = _NONE
    """JSON object, or null."""

    @property
    def usable_tools(self) -> Tools | None:
        """What the answer may call. Raises ApiError."""
        if self.tools is _NONE and self.tool_choice is None:
            return None
        return read_tools(
            self.tools, self.tool_choice, parallel=self.parallel_tool_calls is not False
        )

    @property
    def grammar(self) -> Grammar | None:
        asked = super().grammar
        tools = self.usable_tools
        forced = None if tools is None else tools.grammar
        if asked is not None and forced is not None:
            raise bad_field(asked.param, f"'{asked.param}' cannot go with this 'tool_choice'.")
        return asked or forced

    @property
    def token_limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    def _check(self) -> Self:
        super()._check()
        if self.top_logprobs and not self.logprobs:
            raise bad_field("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.")
        if bytes(self.chat_template_kwargs)[:1] not in {b"{", b"n"}:
            raise bad_field("chat_template_kwargs", "'chat_template_kwargs' must be an object.")
        check_messages(_MESSAGES.decode(self.messages, within="messages"))
        return self


class CompletionRequest(GenerationRequest, kw_only=True):
    """A body of POST /v1/completions."""

    prompt: fields.Prompt
    max_tokens: fields.MinTokens | None = None
    """0: only what `echo` gives."""
    echo: bool | None = None
    logprobs: fields.TopLogprobs | None = None
    best_of: fields.Choices | None = None

    @property
    def prompts(self) -> tuple[str | bytes, ...]:
        """One entry a prompt: text, or packed little-endian u32 token ids."""
        match self.prompt:
            case str(text):
                return (text,)
            case [int(), *_]:
                return (packed(self.prompt),)
            case several:
                return tuple(one if isinstance(one, str) else packed(one) for one in several)

    @property
    def candidates(self) -> int:
        return self.best_of or self.choices

    @property
    def wanted_logprobs(self) -> int | None:
        # Which are the best is told by them.
        return 0 if self.logprobs is None and self.candidates > self.choices else self.logprobs

    @property
    def prompt_wish(self) -> PromptWish:
        return "logprobs" if self.echo and self.logprobs is not None else "none"

    def _check(self) -> Self:
        super()._check()
        check_prompt(self.prompt, "prompt")
        several = len(self.prompt) if is_several(self.prompt) else 1
        if several * self.choices > fields.MAX_CHOICES:
            raise bad_field("n", f"'n' times prompts must be at most {fields.MAX_CHOICES}.")
        if self.best_of is not None:
            self._check_best_of(self.best_of, several)
        return self

    def _check_best_of(self, best_of: int, prompts: int) -> None:
        if best_of < self.choices:
            raise bad_field("best_of", "'best_of' must be at least 'n'.")
        if best_of > self.choices and self.stream:
            raise bad_field("best_of", "'best_of' above 'n' cannot go with 'stream'.")
        if prompts * best_of > fields.MAX_CHOICES:
            text = f"'best_of' times prompts must be at most {fields.MAX_CHOICES}."
            raise bad_field("best_of", text)


def parse_chat(body: bytes) -> ChatRequest:
    """Read a body of POST /v1/chat/completions. Raises ApiError, and nothing else."""
    return _CHAT.decode(body)._check()  # noqa: SLF001  # same room


def parse_completion(body: bytes) -> CompletionRequest:
    """Read a body of POST /v1/completions. Raises ApiError, and nothing else."""
    return _COMPLETION.decode(body)._check()  # noqa: SLF001  # same room


def ignored(body: bytes, request: GenerationRequest) -> tuple[str, ...]:
    """Names in the body that mean nothing here. Costs one more pass over the body."""
    return unknown_fields(body, type(request))


def refuse_unknown(body: bytes, request: GenerationRequest) -> None:
    """Raises ApiError for a field that is neither this server's nor OpenAI's."""
    for name in ignored(body, request):
        if name not in KNOWN:
            raise bad_field(
                name, f"Unrecognized request argument: '{name}'.", code="unknown_parameter"
            )


_CHAT = Decoder(ChatRequest)
_COMPLETION = Decoder(CompletionRequest)
_MESSAGES = Decoder(list[fields.Message])
_ANYTHING: Decoder[object] = Decoder(object)


def _check_harmless(name: str, raw: msgspec.Raw) -> None:
    value = _ANYTHING.decode(raw, within=name)
    if value is not None and value not in HARMLESS.get(name, ()):
        raise unsupported(name)


def check_messages(messages: list[fields.Message]) -> None:
    """Raises ApiError for messages that hold something else than text, or nothing."""
    if not messages:
        raise bad_field("messages", "'messages' must hold at least one message.")
    for index, message in enumerate(messages):
        content = message.content
        if content.__class__ is str:
            continue
        where = f"messages[{index}].content"
        if content is None:
            # An assistant's message may be a tool call alone.
            if message.role != "assistant":
                raise missing_field(where)
            continue
        for position, part in enumerate(content):
            assert isinstance(part, fields.ContentPart)
            refused = part.type == "refusal" and message.role == "assistant"
            if part.type != "text" and not refused:
                raise unsupported(
                    f"{where}[{position}].type",
                    f"Content of type '{part.type}' is not supported by this server; "
                    "only 'text' is.",
                )
            if (part.refusal if refused else part.text) is None:
                raise missing_field(f"{where}[{position}].{part.type}")


def is_several(prompt: fields.Prompt) -> bool:
    """Whether it is an array of prompts."""
    return not isinstance(prompt, str) and not isinstance(prompt[0], int)


def check_prompt(prompt: fields.Prompt, param: str) -> None:
    """The decoder lets an array mix what it may hold; a client may not. Never an empty array.
    Raises ApiError."""
    if isinstance(prompt, str):
        return
    kind = type(prompt[0])
    for index, one in enumerate(prompt):
        if type(one) is not kind:
            raise bad_field(
                f"{param}[{index}]",
                f"'{param}' must be a string, or an array of strings, of token ids, or of arrays "
                "of token ids.",
            )
        if one == []:
            raise bad_field(f"{param}[{index}]", "A prompt of token ids must not be empty.")


def packed(tokens: Any) -> bytes:  # a list of ints once checked
    """Token ids as they travel."""
    return struct.pack(f"<{len(tokens)}I", *tokens)
