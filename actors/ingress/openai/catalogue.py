"""Every field that OpenAI's own client can send to chat, completions, responses and embeddings, and
what becomes of it.

The table in docs/api.md is written from here (`python -m actors.ingress.openai.catalogue`), and the
tests send every field's example.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

Fate = Literal["supported", "refused", "ignored"]


class Field(NamedTuple):
    """One field. `refused`: a value like the example gets a 400 that names the field."""

    name: str
    fate: Fate
    example: Any
    note: str = ""


_ALSO_FOR_RESPONSES = frozenset(
    {"frequency_penalty", "logit_bias", "presence_penalty", "seed", "stop"}
)
_TOOL = {"type": "function", "function": {"name": "time"}}

_BOTH = (
    Field("frequency_penalty", "supported", 0.5),
    Field("logit_bias", "supported", {"5": -100}),
    Field(
        "max_tokens",
        "supported",
        5,
        "chat: `max_completion_tokens` goes first; completions: 0 for `echo` alone",
    ),
    Field("model", "supported", "m", "see `GET /v1/models`"),
    Field("n", "supported", 2, "up to 128"),
    Field("presence_penalty", "supported", 0.5),
    Field("seed", "supported", 7, "the same seed gives the same tokens, also after a loss"),
    Field("stop", "supported", ["a", "b"], "up to 16 strings"),
    Field("stream", "supported", True),  # noqa: FBT003 - an example
    Field("temperature", "supported", 0.5),
    Field("top_p", "supported", 0.9),
    Field(
        "user",
        "supported",
        "u",
        "as `x-understudy-session`: its requests stay together",
    ),
)
_STREAM_OPTIONS = Field(
    "stream_options",
    "supported",
    {"include_usage": True},
    "`include_usage`, `continuous_usage_stats`; `include_obfuscation` is ignored",
)

CHAT = (
    *_BOTH,
    _STREAM_OPTIONS,
    Field("audio", "refused", {"voice": "alloy", "format": "wav"}),
    Field("function_call", "refused", "auto", "use `tool_choice`"),
    Field("functions", "refused", [{"name": "f"}], "use `tools`"),
    Field("logprobs", "supported", True),  # noqa: FBT003 - an example
    Field("max_completion_tokens", "supported", 5),
    Field("messages", "supported", [{"role": "user", "content": "hi"}], "text content only"),
    Field("metadata", "ignored", {"a": "b"}),
    Field("modalities", "refused", ["text", "audio"], '`["text"]` is accepted'),
    Field("moderation", "refused", {"model": "omni-moderation-latest"}),
    Field("parallel_tool_calls", "supported", False),  # noqa: FBT003 - an example
    Field("prediction", "ignored", {"type": "content", "content": "x"}, "it changes no token"),
    Field("prompt_cache_key", "ignored", "k", "prompts are found in the cache by their content"),
    Field("prompt_cache_options", "ignored", {}),
    Field("prompt_cache_retention", "ignored", "24h"),
    Field("reasoning_effort", "ignored", "low", "say it in `chat_template_kwargs`"),
    Field(
        "response_format",
        "supported",
        {"type": "json_object"},
        "followed by the transformers engine; a schema whatever `strict` says",
    ),
    Field("safety_identifier", "ignored", "s"),
    Field("service_tier", "ignored", "auto"),
    Field("store", "ignored", True, "nothing is stored"),  # noqa: FBT003 - an example
    Field("tool_choice", "supported", "none", "`auto` needs the worker option `tool_parser`"),
    Field("tools", "supported", [_TOOL], "functions only"),
    Field("top_logprobs", "supported", 3, "with `logprobs`"),
    Field("verbosity", "ignored", "low"),
    Field("web_search_options", "refused", {}),
)

COMPLETION = (
    *_BOTH,
    _STREAM_OPTIONS,
    Field("best_of", "supported", 3, "the likeliest per token; above `n` not with `stream`"),
    Field(
        "echo",
        "supported",
        True,  # noqa: FBT003 - an example
        "with `logprobs` also those of the prompt, null for its first token",
    ),
    Field("logprobs", "supported", 2, "up to 20"),
    Field("prompt", "supported", ["a", "b"], "text, token ids, or arrays of either"),
    Field("suffix", "refused", "x", "models that fill in are not known here"),
)

EXTENSIONS = (
    Field("add_special_tokens", "supported", True),  # noqa: FBT003 - an example
    Field("guided_choice", "supported", ["a", "b"]),
    Field("guided_grammar", "supported", 'start: "a"', "Lark or GBNF"),
    Field("guided_json", "supported", {"type": "object"}),
    Field("guided_regex", "supported", "a+"),
    Field("ignore_eos", "supported", True),  # noqa: FBT003 - an example
    Field("min_p", "supported", 0.1),
    Field("min_tokens", "supported", 1),
    Field("repetition_penalty", "supported", 1.1),
    Field("skip_special_tokens", "supported", False),  # noqa: FBT003 - an example
    Field("stop_token_ids", "supported", [1, 2]),
    Field("structured_outputs", "supported", {"regex": "a+"}),
    Field("top_k", "supported", 40),
    Field("include_stop_str_in_output", "refused", True),  # noqa: FBT003 - an example
    Field("prompt_logprobs", "refused", 1),
    Field("truncate_prompt_tokens", "refused", 10),
    Field("use_beam_search", "refused", True),  # noqa: FBT003 - an example
)
"""Fields of other servers of this API, for chat and completions alike."""

CHAT_EXTENSIONS = (
    Field("add_generation_prompt", "supported", True),  # noqa: FBT003 - an example
    Field("chat_template_kwargs", "supported", {"a": 1}),
    Field("chat_template", "refused", "{{ 1 }}"),
    Field("continue_final_message", "refused", True),  # noqa: FBT003 - an example
    Field("documents", "refused", [{"a": "b"}]),
)

_FUNCTION = {"type": "function", "name": "time"}

RESPONSES = (
    Field("access_programs", "ignored", {}),
    Field("background", "refused", True, "use `stream`"),  # noqa: FBT003 - an example
    Field("background_options", "refused", {"completion_window": "2h"}),
    Field("context_management", "refused", [{"type": "compaction"}]),
    Field("conversation", "refused", "conv_1", "use `previous_response_id`"),
    Field("image", "refused", {"context_compression": "auto"}),
    Field(
        "include",
        "supported",
        ["message.output_text.logprobs"],
        "`message.output_text.logprobs`; others have nothing to include",
    ),
    Field(
        "input",
        "supported",
        [{"role": "user", "content": "hi"}],
        "text, or messages, function calls, their outputs, and reasoning; text content only",
    ),
    Field("instructions", "supported", "Be brief.", "not carried over to the next response"),
    Field("max_output_tokens", "supported", 5),
    Field("max_tool_calls", "ignored", 3, "there are no built-in tools to call"),
    Field("metadata", "supported", {"a": "b"}, "kept with the response"),
    Field("model", "supported", "m", "see `GET /v1/models`"),
    Field("moderation", "refused", {"model": "omni-moderation-latest"}),
    Field("parallel_tool_calls", "supported", False),  # noqa: FBT003 - an example
    Field("previous_response_id", "supported", "resp_1", "as long as it is kept"),
    Field("prompt", "refused", {"id": "pmpt_1"}, "use `instructions`"),
    Field("prompt_cache_key", "ignored", "k", "prompts are found in the cache by their content"),
    Field("prompt_cache_options", "ignored", {}),
    Field("prompt_cache_retention", "ignored", "24h"),
    Field("reasoning", "ignored", {"effort": "low"}, "say it in `chat_template_kwargs`"),
    Field("safety_identifier", "ignored", "s"),
    Field("service_tier", "ignored", "auto"),
    Field("store", "supported", False, "true unless said otherwise"),  # noqa: FBT003
    Field("stream", "supported", True),  # noqa: FBT003 - an example
    Field("stream_options", "ignored", {"include_obfuscation": False}),
    Field("temperature", "supported", 0.5),
    Field("text", "supported", {"format": {"type": "json_object"}}, "`verbosity` is ignored"),
    Field("tool_choice", "supported", "none", "`auto` needs the worker option `tool_parser`"),
    Field("tools", "supported", [_FUNCTION], "functions only"),
    Field("top_logprobs", "supported", 3),
    Field("top_p", "supported", 0.9),
    Field("truncation", "supported", "disabled", "`auto` is refused"),
    Field("user", "supported", "u", "names the tenant where nothing else does"),
)
RESPONSES_EXTENSIONS = (
    *(field for field in EXTENSIONS if field.fate == "supported"),
    *(field for field in _BOTH if field.name in _ALSO_FOR_RESPONSES),
    *(field for field in CHAT_EXTENSIONS if field.fate == "supported"),
    Field("logprobs", "refused", True, "use `top_logprobs`, or `include`"),  # noqa: FBT003
    Field("max_completion_tokens", "refused", 5, "use `max_output_tokens`"),
    Field("max_tokens", "refused", 5, "use `max_output_tokens`"),
    Field("messages", "refused", [{"role": "user", "content": "hi"}], "use `input`"),
    Field("n", "refused", 2, "a response is one answer"),
    Field("response_format", "refused", {"type": "json_object"}, "use `text.format`"),
)
"""What responses take beside their own fields, as chat does."""

EMBEDDINGS = (
    Field("dimensions", "supported", 8, "only what the model has"),
    Field("encoding_format", "supported", "base64", "`float` or `base64`"),
    Field("input", "supported", ["a", "b"], "text, token ids, or arrays of either"),
    Field("model", "supported", "m", "see `GET /v1/models`"),
    Field("user", "supported", "u", "names the tenant where nothing else does"),
)
EMBEDDINGS_EXTENSIONS = (Field("add_special_tokens", "supported", True),)  # noqa: FBT003

KNOWN_RESPONSES = frozenset(field.name for field in (*RESPONSES, *RESPONSES_EXTENSIONS))
KNOWN = frozenset(field.name for field in (*CHAT, *COMPLETION, *EXTENSIONS, *CHAT_EXTENSIONS))


def tables() -> str:
    """All fields as Markdown."""
    parts = (
        ("Chat completions", "chat", CHAT),
        ("Completions", "completion", COMPLETION),
        ("Extensions, for both", "extension", EXTENSIONS),
        ("Extensions, for chat", "chat_extension", CHAT_EXTENSIONS),
        ("Responses", "responses", RESPONSES),
        ("Extensions, for responses", "responses_extension", RESPONSES_EXTENSIONS),
        ("Embeddings", "embeddings", EMBEDDINGS),
        ("Extensions, for embeddings", "embeddings_extension", EMBEDDINGS_EXTENSIONS),
    )
    return "\n".join(
        f"### {title}\n\n| field | | note | test |\n|---|---|---|---|\n"
        + "".join(
            f"| `{field.name}` | {field.fate} | {field.note} | `test_{test}[{field.name}]` |\n"
            for field in sorted(fields)
        )
        for title, test, fields in parts
    )


if __name__ == "__main__":
    print(tables(), end="")
