"""`POST /tokenize` and `POST /detokenize`, in the form that vLLM gave them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from actors.ingress.openai import fields
from actors.ingress.openai.decoding import Decoder
from actors.ingress.openai.errors import bad_field, missing_field
from actors.ingress.openai.requests import check_messages
from actors.messages.cards import WorkerCard
from actors.messages.key import count_tokens
from actors.messages.submit import ChatPrompt
from actors.text.chat_template import ChatTemplateError, join_text_parts, read_call_arguments
from actors.text.tokenizer import Tokenizer, unpacked

MAX_TOKENS = 1_000_000


class Tokenize(msgspec.Struct):
    """A body of POST /tokenize: a `prompt`, or `messages` for the model's chat template."""

    model: fields.ModelName
    prompt: str | None = None
    messages: list[fields.Message] | None = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool | None = None
    return_token_strs: bool | None = None


class Detokenize(msgspec.Struct):
    """A body of POST /detokenize."""

    model: fields.ModelName
    tokens: Annotated[list[fields.TokenId], Meta(max_length=MAX_TOKENS)]


class Tokenized(msgspec.Struct, omit_defaults=True):
    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class Detokenized(msgspec.Struct):
    prompt: str


def read_tokenize(body: bytes) -> Tokenize:
    """Raises ApiError."""
    asked = _TOKENIZE.decode(body)
    if (asked.prompt is None) == (asked.messages is None):
        raise missing_field("prompt")
    if asked.messages is not None:
        check_messages(asked.messages)
    return asked


def read_detokenize(body: bytes) -> Detokenize:
    """Raises ApiError."""
    return _DETOKENIZE.decode(body)


def tokenize(asked: Tokenize, tokenizer: Tokenizer, card: WorkerCard) -> bytes:
    """The body of the answer. Raises ApiError."""
    special = asked.add_special_tokens is not False
    text = asked.prompt
    if text is None:
        special = bool(asked.add_special_tokens)
        messages = msgspec.to_builtins(asked.messages)
        try:
            text = tokenizer.chat_templates.render(
                read_call_arguments(join_text_parts(messages)),
                add_generation_prompt=asked.add_generation_prompt is not False,
            )
        except ChatTemplateError as error:
            raise bad_field("messages", f"The chat template refuses: {error}") from error
    try:
        packed = tokenizer.encode(text, add_special_tokens=special)
    except ValueError as error:
        raise bad_field("prompt", f"The text cannot be tokenised: {error}.") from error
    tokens = unpacked(packed)
    spelled = None
    if asked.return_token_strs:
        spelled = [tokenizer.token_bytes(token).decode("utf-8", "replace") for token in tokens]
    return msgspec.json.encode(
        Tokenized(count_tokens(packed), card.max_context_tokens, tokens, spelled)
    )


def count_chat(prompt: ChatPrompt, tokenizer: Tokenizer) -> int:
    """How many tokens a conversation is. Raises ApiError."""
    try:
        text = tokenizer.chat_templates.render(
            read_call_arguments(join_text_parts(msgspec.json.decode(prompt.messages))),
            tools=msgspec.json.decode(prompt.tools),
            add_generation_prompt=prompt.add_generation_prompt,
            kwargs=msgspec.json.decode(prompt.template_arguments),
        )
        return count_tokens(tokenizer.encode(text, add_special_tokens=False))
    except ChatTemplateError as error:
        raise bad_field("messages", f"The chat template refuses: {error}") from error
    except ValueError as error:
        raise bad_field("messages", f"The text cannot be tokenised: {error}.") from error


def detokenize(asked: Detokenize, tokenizer: Tokenizer) -> bytes:
    """The body of the answer. Raises ApiError for a token the model does not have."""
    highest = max(asked.tokens, default=0)
    if highest >= tokenizer.vocabulary_size:
        raise bad_field("tokens", f"Token id {highest} is outside the model's vocabulary.")
    text = tokenizer.decode(asked.tokens, skip_special_tokens=False)
    return msgspec.json.encode(Detokenized(text))


_TOKENIZE = Decoder(Tokenize)
_DETOKENIZE = Decoder(Detokenize)
