"""Llama 3: the answer is a JSON object, or several with semicolons between them.

    <|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": ...}

The tag is missing as often as not. An object that names no tool of the request is plain content.
"""

from __future__ import annotations

from actors.text.answers.calls import CallObject
from actors.text.answers.parts import Part, ToolParser, Writer
from actors.text.answers.scanning import cut

TAG = "<|python_tag|>"


class PlainJson(ToolParser):
    """Calls stand at the beginning of the answer, or behind the tag; the rest is content."""

    markers = (TAG,)

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._writer = Writer()
        self._call: CallObject | None = None
        self._may_begin = True
        self._rest = ""

    def push(self, text: str) -> list[Part]:
        rest = self._rest + text
        self._rest = ""
        while rest:
            if self._call is not None:
                rest = self._in_call(self._call, rest)
            elif self._may_begin:
                bare = rest.lstrip(" \t\r\n;" if self._writer.calls else " \t\r\n")
                if bare.startswith("{"):
                    self._call = CallObject(self._writer, self._known)
                    rest = bare
                elif bare.startswith(TAG):
                    rest = bare[len(TAG) :]
                elif TAG.startswith(bare):  # also when there is nothing but white space
                    self._rest, rest = rest, ""
                else:
                    self._may_begin = False
            else:
                before, marker, behind = cut(rest, (TAG,))
                self._writer.content(before)
                self._may_begin = bool(marker)
                if not marker:
                    self._rest = behind
                    break
                rest = behind
        return self._writer.take()

    def _in_call(self, call: CallObject, text: str) -> str:
        rest = call.push(text)
        if call.over or call.failed:
            self._call = None
            if call.failed and not call.is_call:
                self._writer.content(call.raw)
                self._may_begin = False
        return rest

    def flush(self) -> list[Part]:
        if self._call is not None and not self._call.is_call:
            self._writer.content(self._call.raw)
        elif self._rest.strip(" \t\r\n;") or not self._writer.calls:
            self._writer.content(self._rest)
        return self._writer.end()
