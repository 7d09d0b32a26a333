"""Rendering a model's chat template as `transformers` renders it, without `transformers`.

A template is a program from a model's repository; it runs in Jinja's immutable sandbox with the
names and filters that `transformers.utils.chat_template_utils` offers.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

DEFAULT = "default"
TOOL_USE = "tool_use"
"""The template some models keep apart for requests with tools."""

_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt"})


class ChatTemplateError(Exception):
    """The template refused these messages, or failed on them; the text says why."""


class NoChatTemplate(ChatTemplateError):
    """The model has no template for chat; it may still serve plain completions."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        have = f" (it has only {', '.join(names)})" if names else ""
        super().__init__(f"the model has no default chat template{have}")


class ChatTemplates:
    """A model's chat templates, compiled once. Rendering is safe from several threads."""

    def __init__(
        self,
        sources: str | Mapping[str, str],
        special_tokens: Mapping[str, str],
        *,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """Compile one template, or several by name.

        `special_tokens` are names the templates may use, such as `bos_token`; `now` is the clock
        behind `strftime_now`. Raises ChatTemplateError when a template does not compile.
        """
        named = {DEFAULT: sources} if isinstance(sources, str) else sources
        environment = _environment(now)
        self._special_tokens = dict(special_tokens)
        self._templates: dict[str, jinja2.Template] = {}
        for name, source in named.items():
            try:
                self._templates[name] = environment.from_string(source)
            except jinja2.TemplateSyntaxError as error:
                raise ChatTemplateError(
                    f"chat template {name!r} does not compile: line {error.lineno}: {error.message}"
                ) from error

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt for these messages, to be encoded without adding special tokens again.

        Keys of a message whose value is None are hidden from the template, as `transformers`
        does. `kwargs` are further variables (`chat_template_kwargs` of a request); they go before
        special tokens of the same name. Raises NoChatTemplate; ChatTemplateError when the
        template calls `raise_exception`, fails, or a name in `kwargs` is one of ours.
        """
        if clash := _OURS.intersection(kwargs or ()):
            raise ChatTemplateError(
                f"chat_template_kwargs must not name {', '.join(sorted(clash))}"
            )
        template = self._choose(tools)
        shown = [{k: v for k, v in message.items() if v is not None} for message in messages]
        variables: dict[str, Any] = {**self._special_tokens, **(kwargs or {})}
        try:
            return template.render(
                variables,
                messages=shown,
                tools=tools,
                documents=None,
                add_generation_prompt=add_generation_prompt,
            )
        except jinja2.TemplateError as error:
            raise ChatTemplateError(error.message or type(error).__name__) from error
        except Exception as error:
            # The template is foreign code and can raise anything an expression can: TypeError for
            # content it did not expect, RecursionError, OverflowError from range().
            raise ChatTemplateError(f"{type(error).__name__}: {error}") from error

    def _choose(self, tools: Sequence[Mapping[str, Any]] | None) -> jinja2.Template:
        if tools is not None and TOOL_USE in self._templates:
            return self._templates[TOOL_USE]
        if DEFAULT not in self._templates:
            raise NoChatTemplate(sorted(self._templates))
        return self._templates[DEFAULT]


def join_text_parts(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Messages with content given as parts turned into strings, parts joined by a newline. A part
    is text, or what an assistant said in refusal.

    Most templates know string content only; those that know parts accept strings too. The newline
    is what other servers of this API put between parts.
    """
    return [
        {**message, "content": "\n".join(map(_text_of, message["content"]))}
        if isinstance(message.get("content"), list)
        else dict(message)
        for message in messages
    ]


def _text_of(part: Mapping[str, Any]) -> str:
    return str(part["refusal" if part.get("type") == "refusal" else "text"])


def read_call_arguments(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Messages with the arguments of their calls as objects; changes them in place.

    The API has them as JSON in a string, as the model wrote them; templates write them as JSON
    themselves. What is no JSON object stays a string.
    """
    for message in messages:
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                with contextlib.suppress(ValueError, RecursionError):
                    read = json.loads(function["arguments"] or "{}")
                    function["arguments"] = (
                        read if isinstance(read, dict) else function["arguments"]
                    )
    return messages


def _environment(now: Callable[[], datetime]) -> jinja2.Environment:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationBlock, jinja2.ext.loopcontrols],
    )

    def strftime_now(form: str) -> str:
        return now().strftime(form)

    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment


class _GenerationBlock(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant wrote, for training. Here it is only its body."""

    tags = frozenset({"generation"})  # type: ignore[assignment]  # Jinja's annotation says set

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: object,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002  # templates may pass it by position
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002  # same
) -> str:
    """Jinja's own filter escapes `<`, `>`, `&` and `'` for HTML; a model must see them plain."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
