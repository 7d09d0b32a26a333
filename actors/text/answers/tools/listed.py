"""Mistral, in its older form a list, in its newer one a name and an object for each call.

    [TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}, ...]
    [TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]...

The list without its marker is also what a guided answer to `tool_choice: required` is.
"""

from __future__ import annotations

from typing import Literal

from actors.text.answers.calls import MAX_NAME_CHARACTERS, CallObject, JsonValue
from actors.text.answers.parts import Part, ToolParser, Writer
from actors.text.answers.scanning import cut

MARK, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
_SPACE = " \t\r\n"

State = Literal["content", "marked", "list", "object", "name", "arguments", "over"]


class Listed(ToolParser):
    """Text before the first marker is content; behind it there are calls only."""

    markers = (MARK, ARGS, CALL_ID)

    def __init__(self, known: frozenset[str], *, begun: bool = False) -> None:
        """`begun`: the list comes at once, without a marker."""
        del known  # what is marked is meant as a call, whatever its name
        self._writer = Writer()
        self._state: State = "marked" if begun else "content"
        self._rest = ""
        self._call = CallObject(self._writer, None)
        self._value = JsonValue()

    def push(self, text: str) -> list[Part]:
        rest, self._rest = self._rest + text, ""
        while rest:
            rest = self._read(rest)
        return self._writer.take()

    def _read(self, text: str) -> str:  # noqa: C901 - one branch a state
        match self._state:
            case "content":
                before, marker, rest = cut(text, (MARK,))
                self._writer.content(before)
                if marker:
                    self._state = "marked"
                    return rest
                self._rest = rest
                return ""
            case "marked":
                text = text.lstrip(_SPACE)
                if text:
                    self._state = "list" if text[0] == "[" else "name"
                return text[1:] if self._state == "list" else text
            case "list":
                text = text.lstrip(_SPACE + ",")
                if text:
                    self._state = "over" if text[0] == "]" else "object"
                    self._call = CallObject(self._writer, None)
                return text
            case "object":
                rest = self._call.push(text)
                if self._call.over or self._call.failed:
                    self._state = "list" if self._call.over else "over"
                return rest
            case "name":
                return self._name(text)
            case "arguments":
                return self._arguments(text)
            case "over":
                # Behind a list, and behind the arguments of a named call: another marker, or
                # nothing that is meant for a reader.
                _, marker, rest = cut(text, (MARK,))
                if marker:
                    self._state = "marked"
                    return rest
                self._rest = rest
                return ""

    def _name(self, text: str) -> str:
        at = text.find("{")
        if at < 0 and len(text) > MAX_NAME_CHARACTERS:
            self._writer.content(MARK + text)
            self._state = "content"
            return ""
        if at < 0:
            self._rest = text
            return ""
        name = text[:at].partition(CALL_ID)[0].partition(ARGS)[0].strip()
        self._writer.begin(name)
        self._value, self._state = JsonValue(), "arguments"
        return text[at:]

    def _arguments(self, text: str) -> str:
        for at, character in enumerate(text):
            if not self._value.takes(character):
                self._writer.arguments(text[: at + 1])
                self._state = "over"
                return text[at + 1 :]
        self._writer.arguments(text)
        return ""

    def flush(self) -> list[Part]:
        if self._state == "content":
            self._writer.content(self._rest)
        elif self._state == "name":
            self._writer.content(MARK + self._rest)
        return self._writer.end()
