"""A guided answer to a `tool_choice` that names a tool: all of it is the arguments."""

from __future__ import annotations

from actors.text.answers.parts import Part, ToolParser, Writer


class Named(ToolParser):
    """One call of one tool."""

    def __init__(self, name: str) -> None:
        self._writer = Writer()
        self._writer.begin(name)

    def push(self, text: str) -> list[Part]:
        self._writer.arguments(text)
        return self._writer.take()

    def flush(self) -> list[Part]:
        return self._writer.end()
