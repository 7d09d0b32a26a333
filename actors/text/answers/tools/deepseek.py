"""DeepSeek V3 and R1, and the shorter form of V3.1.

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather
```json
{"city": "Oslo"}
```<｜tool▁call▁end｜>...<｜tool▁calls▁end｜>

<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{"city": ...}<｜tool▁call▁end｜>...
"""  # noqa: RUF002 - these bars are part of the tokens

from __future__ import annotations

from typing import Literal

from actors.text.answers.calls import MAX_NAME_CHARACTERS, JsonValue
from actors.text.answers.parts import Part, ToolParser, Writer
from actors.text.answers.scanning import cut

CALLS_BEGIN = "<｜tool▁calls▁begin｜>"  # noqa: RUF001 - as the model writes it
CALLS_END = "<｜tool▁calls▁end｜>"  # noqa: RUF001
CALL_BEGIN = "<｜tool▁call▁begin｜>"  # noqa: RUF001
CALL_END = "<｜tool▁call▁end｜>"  # noqa: RUF001
SEPARATOR = "<｜tool▁sep｜>"  # noqa: RUF001

State = Literal["content", "between", "head", "arguments", "tail"]


class DeepSeek(ToolParser):
    """Text before and behind the block of calls is content."""

    markers = (CALLS_BEGIN, CALLS_END, CALL_BEGIN, CALL_END, SEPARATOR)

    def __init__(self, known: frozenset[str]) -> None:
        del known  # what is marked is meant as a call, whatever its name
        self._writer = Writer()
        self._state: State = "content"
        self._rest = ""
        self._value = JsonValue()

    def push(self, text: str) -> list[Part]:
        rest, self._rest = self._rest + text, ""
        while rest:
            rest = self._read(rest)
        return self._writer.take()

    def _read(self, text: str) -> str:
        match self._state:
            case "content":
                before, marker, rest = cut(text, (CALLS_BEGIN, CALL_BEGIN))
                self._writer.content(before)
                return self._after(marker, rest)
            case "between" | "tail":
                _, marker, rest = cut(text, (CALLS_END, CALL_BEGIN))
                return self._after(marker, rest)
            case "head":
                at = text.find("{")
                if at < 0:
                    return self._no_arguments_yet(text)
                self._writer.begin(_name(text[:at]))
                self._value, self._state = JsonValue(), "arguments"
                return text[at:]
            case "arguments":
                for at, character in enumerate(text):
                    if not self._value.takes(character):
                        self._writer.arguments(text[: at + 1])
                        self._state = "tail"
                        return text[at + 1 :]
                self._writer.arguments(text)
                return ""

    def _no_arguments_yet(self, text: str) -> str:
        if len(text) > MAX_NAME_CHARACTERS:
            self._writer.content(CALL_BEGIN + text)
            self._state = "content"
        else:
            self._rest = text
        return ""

    def _after(self, marker: str, rest: str) -> str:
        if not marker:
            self._rest = rest
            return ""
        states: dict[str, State] = {CALLS_BEGIN: "between", CALL_BEGIN: "head"}
        self._state = states.get(marker, "content")
        return rest

    def flush(self) -> list[Part]:
        if self._state == "content":
            self._writer.content(self._rest)
        elif self._state == "head":
            self._writer.content(CALL_BEGIN + self._rest)
        return self._writer.end()


def _name(head: str) -> str:
    """`function<sep>NAME`, a line break and a fence; or `NAME<sep>`."""
    kind, _, behind = head.partition(SEPARATOR)
    return (behind.strip().partition("\n")[0] or kind).strip()
