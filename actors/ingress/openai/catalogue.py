"""Every field that OpenAI's own client can send to chat and completions, and what becomes of it.

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


_TOOL = {"type": "function", "function": {"name": "time"}}

_BOTH = (
    Field("frequency_penalty", "supported", 0.5),
    Field("logit_bias", "supported", {"5": -100}),
    Field("max_tokens", "supported", 5, "chat: `max_completion_tokens` goes first"),
    Field("model", "supported", "m", "see `GET /v1/models`"),
    Field("n", "supported", 2, "up to 128"),
    Field("presence_penalty", "supported", 0.5),
    Field("seed", "supported", 7, "the same seed gives the same tokens, also after a loss"),
    Field("stop", "supported", ["a", "b"], "up to 16 strings"),
    Field("stream", "supported", True),  # noqa: FBT003 - an example
    Field("temperature", "supported", 0.5),
    Field("top_p", "supported", 0.9),
    Field("user", "supported", "u", "names the tenant where nothing else does"),
)
_STREAM_OPTIONS = Field(
    "stream_options",
    "supported",
    {"include_usage": True},
    "`include_usage`; `continuous_usage_stats` is refused, `include_obfuscation` ignored",
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
    Field("best_of", "refused", 3, "accepted when it equals `n`"),
    Field("echo", "supported", True, "not together with `logprobs`"),  # noqa: FBT003
    Field("logprobs", "supported", 2, "up to 20"),
    Field("prompt", "supported", ["a", "b"], "text, token ids, or arrays of either"),
    Field("suffix", "refused", "x"),
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

KNOWN = frozenset(field.name for field in (*CHAT, *COMPLETION, *EXTENSIONS, *CHAT_EXTENSIONS))


def tables() -> str:
    """All fields as Markdown."""
    parts = (
        ("Chat completions", "chat", CHAT),
        ("Completions", "completion", COMPLETION),
        ("Extensions, for both", "extension", EXTENSIONS),
        ("Extensions, for chat", "chat_extension", CHAT_EXTENSIONS),
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
