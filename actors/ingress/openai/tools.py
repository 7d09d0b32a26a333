"""Tools as clients describe them, and what an answer that must call one looks like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.ingress.openai.closing import closed
from actors.ingress.openai.decoding import Decoder
from actors.ingress.openai.errors import bad_field
from actors.ingress.openai.structured import schema_grammar
from actors.messages.sampling import Grammar

MAX_TOOLS = 128
ANY_ARGUMENTS: dict[str, Any] = {"type": "object"}
ON_ONE_LINE = {
    "x-guidance": {
        "whitespace_flexible": False,
        "item_separator": ", ",
        "key_separator": ": ",
    }
}
"""How models were shown calls, and as Python writes JSON."""

ToolName = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[a-zA-Z0-9_.\-]+$")]


class Function(msgspec.Struct, frozen=True):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    """With `tool_choice` required or named the schema is followed whatever this says, and see
    `closing`. With `auto` it is not followed: the model was shown it."""


class Tool(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: Function


class ChosenFunction(msgspec.Struct, frozen=True):
    name: ToolName


class NamedChoice(msgspec.Struct, frozen=True):
    type: Literal["function"]
    function: ChosenFunction


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


class Tools(msgspec.Struct, frozen=True):
    """The tools of a request whose answer may call one."""

    raw: bytes
    """JSON array, for the chat template."""
    offered: tuple[Tool, ...]
    choice: ToolChoice
    parallel: bool

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(tool.function.name for tool in self.offered)

    @property
    def named(self) -> str | None:
        """The only tool that may be called, and must be."""
        return self.choice.function.name if isinstance(self.choice, NamedChoice) else None

    @property
    def grammar(self) -> Grammar | None:
        """What an answer looks like that must call a tool: the arguments of the one named, or
        a list of calls."""
        if self.named is not None:
            return schema_grammar({**self._schema(self.named), **ON_ONE_LINE}, "tools")
        if self.choice != "required":
            return None
        calls: dict[str, Any] = {
            **ON_ONE_LINE,
            "type": "array",
            "minItems": 1,
            "items": {"anyOf": [self._call(name) for name in self.names]},
        }
        if not self.parallel:
            calls["maxItems"] = 1
        return schema_grammar(calls, "tools")

    def _call(self, name: str) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {"name": {"const": name}, "parameters": self._schema(name)},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }

    def _schema(self, name: str) -> dict[str, Any]:
        [parameters] = [
            tool.function.parameters for tool in self.offered if tool.function.name == name
        ]
        return closed(parameters or ANY_ARGUMENTS)


def read_tools(raw: msgspec.Raw, choice: ToolChoice | None, *, parallel: bool) -> Tools | None:
    """The tools that the answer may call; None when it may call none. Raises ApiError."""
    offered = _TOOLS.decode(raw, within="tools") or []
    if len(offered) > MAX_TOOLS:
        raise bad_field("tools", f"'tools' may hold at most {MAX_TOOLS}.")
    _check_names(offered)
    if not offered:
        if choice not in {None, "none", "auto"}:
            raise bad_field("tool_choice", "'tool_choice' needs 'tools'.")
        return None
    if choice == "none":
        return None
    tools = Tools(bytes(raw), tuple(offered), choice or "auto", parallel)
    if tools.named is not None and tools.named not in tools.names:
        raise bad_field("tool_choice", f"There is no tool '{tools.named}' in 'tools'.")
    return tools


def _check_names(offered: Sequence[Tool]) -> None:
    names = [tool.function.name for tool in offered]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise bad_field(f"tools[{index}].function.name", f"Two tools are named '{name}'.")


_TOOLS: Decoder[list[Tool] | None] = Decoder(list[Tool] | None)  # type: ignore[arg-type]
