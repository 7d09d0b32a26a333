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
from actors.ingress.openai.structured import StructuredFields
from actors.ingress.openai.tools import ToolChoice, Tools, read_tools
from actors.messages.sampling import Grammar, Sampling

_SEED_MASK = 2**63 - 1
_NONE = msgspec.Raw(b"null")


class _NotServed(StructuredFields, kw_only=True):
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

    model: fields.ModelName
    max_tokens: fields.TokenCount | None = None
    temperature: fields.Temperature | None = None
    top_p: fields.TopP | None = None
    top_k: fields.TopK | None = None
    min_p: fields.MinP | None = None
    n: fields.Choices | None = None
    seed: fields.Seed | None = None
    stop: fields.Stop | None = None
    stop_token_ids: fields.StopTokenIds | None = None
    ignore_eos: bool | None = None
    min_tokens: fields.MinTokens | None = None
    presence_penalty: fields.Penalty | None = None
    frequency_penalty: fields.Penalty | None = None
    repetition_penalty: fields.RepetitionPenalty | None = None
    logit_bias: fields.LogitBias | None = None
    stream: bool | None = None
    stream_options: fields.StreamOptions | None = None
    skip_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None

    @property
    def choices(self) -> int:
        """How many answers each prompt gets."""
        return self.n or 1

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk of token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stop_strings(self) -> tuple[str, ...]:
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def token_limit(self) -> int | None:
        """Tokens the client wants at most; None when it did not say."""
        return self.max_tokens

    @property
    def wanted_logprobs(self) -> int | None:
        """As `Sampling.logprobs`: None for none, else how many beside the chosen token's."""
        raise NotImplementedError

    def sampling(self, default_max_tokens: int | None, seed: int, *, choice: int = 0) -> Sampling:
        """How the tokens of one choice are chosen.

        `default_max_tokens` holds when the client gave no limit; None then means until the context
        is full. `seed` likewise, 0 ≤ seed < 2**63. Choices of one request have seeds that follow
        each other, so that they differ and can be asked for again. Raises ApiError when
        `min_tokens` is above the limit.
        """
        max_tokens = self.token_limit or default_max_tokens or fields.UNLIMITED_TOKENS
        if (self.min_tokens or 0) > max_tokens:
            raise bad_field("min_tokens", f"'min_tokens' must be at most {max_tokens}.")
        return Sampling(
            max_tokens=max_tokens,
            seed=((seed if self.seed is None else self.seed) + choice) & _SEED_MASK,
            temperature=_given(self.temperature, 1.0),
            top_p=_given(self.top_p, 1.0),
            top_k=max(0, self.top_k or 0),
            min_p=_given(self.min_p, 0.0),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            ignore_eos=bool(self.ignore_eos),
            min_tokens=self.min_tokens or 0,
            presence_penalty=_given(self.presence_penalty, 0.0),
            frequency_penalty=_given(self.frequency_penalty, 0.0),
            repetition_penalty=_given(self.repetition_penalty, 1.0),
            logit_bias=self.logit_bias or {},
            logprobs=self.wanted_logprobs,
            grammar=self.grammar,
        )

    def _check(self) -> Self:
        """What the decoder cannot say of single fields. Raises ApiError."""
        for name in _NOT_SERVED:
            value = getattr(self, name)
            if value is not _NONE:
                _check_harmless(name, value)
        if self.stream_options is not None and not self.stream:
            raise bad_field("stream_options", "'stream_options' needs 'stream' to be true.")
        if self.stream_options is not None and self.stream_options.continuous_usage_stats:
            raise unsupported("stream_options.continuous_usage_stats")
        _ = self.grammar  # raises for what cannot be read
        limit = self.token_limit
        if limit is not None and (self.min_tokens or 0) > limit:
            raise bad_field("min_tokens", f"'min_tokens' must be at most {limit}.")
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
                return (_packed(self.prompt),)
            case several:
                return tuple(one if isinstance(one, str) else _packed(one) for one in several)

    @property
    def wanted_logprobs(self) -> int | None:
        return self.logprobs

    def _check(self) -> Self:
        super()._check()
        _check_prompt(self.prompt)
        several = len(self.prompt) if _is_several(self.prompt) else 1
        if several * self.choices > fields.MAX_CHOICES:
            raise bad_field("n", f"'n' times prompts must be at most {fields.MAX_CHOICES}.")
        if self.best_of is not None and self.best_of < self.choices:
            raise bad_field("best_of", "'best_of' must be at least 'n'.")
        if self.best_of is not None and self.best_of > self.choices:
            raise unsupported("best_of", "'best_of' above 'n' is not supported by this server.")
        if self.echo and self.logprobs is not None:
            raise unsupported("echo", "'echo' with 'logprobs' is not supported by this server.")
        return self


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


def _given(value: float | None, default: float) -> float:
    return default if value is None else value


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
            if part.type != "text":
                raise unsupported(
                    f"{where}[{position}].type",
                    f"Content of type '{part.type}' is not supported by this server; "
                    "only 'text' is.",
                )
            if part.text is None:
                raise missing_field(f"{where}[{position}].text")


def _is_several(prompt: fields.Prompt) -> bool:
    return not isinstance(prompt, str) and not isinstance(prompt[0], int)


def _check_prompt(prompt: fields.Prompt) -> None:
    """The decoder lets an array mix what it may hold; a client may not. Never an empty array."""
    if isinstance(prompt, str):
        return
    kind = type(prompt[0])
    for index, one in enumerate(prompt):
        if type(one) is not kind:
            raise bad_field(
                f"prompt[{index}]",
                "'prompt' must be a string, or an array of strings, of token ids, or of arrays of "
                "token ids.",
            )
        if one == []:
            raise bad_field(f"prompt[{index}]", "A prompt of token ids must not be empty.")


def _packed(tokens: Any) -> bytes:  # a list of ints once checked
    return struct.pack(f"<{len(tokens)}I", *tokens)
