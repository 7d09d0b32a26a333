"""From a prompt as the client put it to token ids within the model's limits. Pure but for CPU."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.messages.assign import Why
from actors.messages.cards import WorkerCard
from actors.messages.key import count_tokens
from actors.messages.route import Route
from actors.messages.submit import ChatPrompt, Submit, TextPrompt, TokenPrompt
from actors.text.chat_template import ChatTemplateError, join_text_parts, read_call_arguments
from actors.text.prompt_cache import PromptCache
from actors.text.tokenizer import TYPE_CODE, Tokenizer

MAX_PROMPT_LOGPROBS = 40_000
"""Of one prompt, those of likely tokens included: they travel in one message (half a megabyte)."""


class Unacceptable(Exception):
    """The prompt cannot be run, for a reason the client should know."""

    def __init__(self, why: Why, text: str, param: str) -> None:
        super().__init__(text)
        self.why = why
        self.text = text
        self.param = param


def prompt_bytes(submit: Submit) -> int:
    """Roughly how much text there is to tokenise."""
    match submit.prompt:
        case ChatPrompt(messages=messages):
            return len(messages)
        case TextPrompt(text=text):
            return len(text)
        case TokenPrompt():
            return 0


def prepare(
    submit: Submit, tokenizer: Tokenizer, card: WorkerCard, cache: PromptCache | None = None
) -> Route:
    """Tokenise, with what the tokenizer's cache knows already, and check. Raises Unacceptable."""
    _check_wish(submit, card)
    _check_biases(submit, tokenizer)
    prompt = _tokenize(submit, tokenizer, cache)
    if not prompt:
        raise Unacceptable("invalid", "The prompt is empty.", "prompt")
    resumed = count_tokens(submit.delivered)
    asked = count_tokens(prompt)
    room = card.max_context_tokens - asked - resumed
    if room < 1:
        raise Unacceptable(
            "too_long",
            f"This model's maximum context length is {card.max_context_tokens} tokens. "
            f"Your prompt has {asked}, which leaves no room for an answer.",
            _param(submit),
        )
    entries = asked * (1 + (submit.sampling.logprobs or 0))
    if submit.sampling.prompt == "logprobs" and entries > MAX_PROMPT_LOGPROBS:
        raise Unacceptable(
            "invalid",
            f"The prompt has {asked} tokens, for which {entries} log probabilities are asked; "
            f"{MAX_PROMPT_LOGPROBS} is the most.",
            "logprobs",
        )
    wanted = submit.sampling.max_tokens
    sampling = msgspec.structs.replace(submit.sampling, max_tokens=min(wanted, room))
    return Route(
        submit.key,
        submit.request_id,
        submit.model,
        prompt + submit.delivered,
        sampling,
        resumed,
        submit.hints,
        submit.budget_s,
        submit.trace,
    )


def _check_wish(submit: Submit, card: WorkerCard) -> None:
    wish = submit.sampling.prompt
    if wish == "embedding" and not card.embedding_size:
        text = f"The engine of '{card.model}' makes no embeddings."
        raise Unacceptable("invalid", text, "model")
    if wish == "logprobs" and not card.prompt_logprobs:
        text = f"The engine of '{card.model}' does not compute log probabilities of prompts."
        raise Unacceptable("invalid", text, "echo")


def _check_biases(submit: Submit, tokenizer: Tokenizer) -> None:
    biased, limit = submit.sampling.logit_bias, tokenizer.vocabulary_size
    if biased and max(biased) >= limit:
        text = f"Token id {max(biased)} is outside the model's vocabulary of {limit}."
        raise Unacceptable("invalid", text, "logit_bias")


def _tokenize(submit: Submit, tokenizer: Tokenizer, cache: PromptCache | None) -> bytes:
    match submit.prompt:
        case ChatPrompt():
            text = _render(submit.prompt, tokenizer)
            if cache is not None:
                return _valid(lambda: cache.encode(text), "messages")
            return _valid(lambda: tokenizer.encode(text, add_special_tokens=False), "messages")
        case TextPrompt(text=text, add_special_tokens=special):
            return _valid(lambda: tokenizer.encode(text, add_special_tokens=special), "prompt")
        case TokenPrompt(tokens=tokens):
            return _checked(tokens, tokenizer)


def _valid(encode: Callable[[], bytes], param: str) -> bytes:
    try:
        return encode()
    except ValueError as error:
        raise Unacceptable("invalid", f"The text cannot be tokenised: {error}.", param) from error


def _render(prompt: ChatPrompt, tokenizer: Tokenizer) -> str:
    try:
        return tokenizer.chat_templates.render(
            read_call_arguments(join_text_parts(msgspec.json.decode(prompt.messages))),
            tools=msgspec.json.decode(prompt.tools),
            add_generation_prompt=prompt.add_generation_prompt,
            kwargs=msgspec.json.decode(prompt.template_arguments),
        )
    except (msgspec.DecodeError, RecursionError) as error:
        # The ingress checks their shape, not every escape within what it passes on unread; and
        # what is nested just deeply enough for its stack may be too deep for this one.
        raise Unacceptable(
            "invalid", f"The messages are not valid JSON: {error}.", "messages"
        ) from error
    except ChatTemplateError as error:
        text = f"The model's chat template does not accept these messages: {error}"
        raise Unacceptable("invalid", text, "messages") from error


def _checked(tokens: bytes, tokenizer: Tokenizer) -> bytes:
    limit = tokenizer.vocabulary_size
    highest = max(memoryview(tokens).cast(TYPE_CODE), default=0)
    if highest >= limit:
        text = f"Token id {highest} is outside the model's vocabulary of {limit}."
        raise Unacceptable("invalid", text, "prompt")
    return tokens


def _param(submit: Submit) -> str:
    return "messages" if isinstance(submit.prompt, ChatPrompt) else "prompt"
