"""Hermes, Qwen 2.5, Qwen 3: one JSON object in tags for each call.

<tool_call>
{"name": "weather", "arguments": {"city": "Oslo"}}
</tool_call>
"""

from __future__ import annotations

from actors.text.answers.calls import CallObject
from actors.text.answers.parts import Part, ToolParser, Writer
from actors.text.answers.scanning import cut

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class TaggedJson(ToolParser):
    """Text outside of the tags is content; between the object and the closing tag nothing is."""

    markers = (OPEN, CLOSE)

    def __init__(self, known: frozenset[str]) -> None:
        del known  # what stands in tags is meant as a call, whatever its name
        self._writer = Writer()
        self._call: CallObject | None = None
        self._closing = False
        self._rest = ""

    def push(self, text: str) -> list[Part]:
        rest = self._rest + text
        self._rest = ""
        while rest:
            if self._call is not None:
                rest = self._in_call(self._call, rest)
                continue
            before, marker, behind = cut(rest, (CLOSE if self._closing else OPEN,))
            if not self._closing:
                self._writer.content(before)
            if not marker:
                self._rest = behind
                break
            if not self._closing:
                self._call = CallObject(self._writer, None)
            self._closing = False
            rest = behind
        return self._writer.take()

    def _in_call(self, call: CallObject, text: str) -> str:
        rest = call.push(text)
        if call.over or call.failed:
            self._call = None
            if call.failed and not call.is_call:
                # What is no call is text, its tags too.
                self._writer.content(OPEN + call.raw)
            else:
                self._closing = True
        return rest

    def flush(self) -> list[Part]:
        if self._call is not None and not self._call.is_call:
            self._writer.content(OPEN + self._call.raw)
        elif not self._closing:
            self._writer.content(self._rest)
        return self._writer.end()
