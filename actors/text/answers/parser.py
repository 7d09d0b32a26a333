"""Reasoning and tools put together, by the names a topology gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from actors.text.answers.names import ReasoningFamily, ToolFamily
from actors.text.answers.parts import CallArguments, CallBegin, Content, Part, Reasoning, ToolParser
from actors.text.answers.reasoning import MARKS, ReasoningSplitter
from actors.text.answers.tools.deepseek import DeepSeek
from actors.text.answers.tools.listed import Listed
from actors.text.answers.tools.named import Named
from actors.text.answers.tools.plain_json import PlainJson
from actors.text.answers.tools.pythonic import Pythonic
from actors.text.answers.tools.tagged import TaggedJson

_FAMILIES: dict[ToolFamily, Callable[[frozenset[str]], ToolParser]] = {
    "hermes": TaggedJson,
    "llama3_json": PlainJson,
    "mistral": Listed,
    "deepseek": DeepSeek,
    "pythonic": Pythonic,
}
_MARKERS: dict[ToolFamily, tuple[str, ...]] = {
    "hermes": TaggedJson.markers,
    "llama3_json": PlainJson.markers,
    "mistral": Listed.markers,
    "deepseek": DeepSeek.markers,
    "pythonic": Pythonic.markers,
}


class AnswerParser:
    """Reads one answer: first what the model thinks, then text and calls."""

    def __init__(
        self,
        reasoning: ReasoningSplitter | None,
        tools: ToolParser | None,
        *,
        max_calls: int | None = None,
    ) -> None:
        """Calls beyond `max_calls` are dropped."""
        self._reasoning = reasoning
        self._tools = tools
        self._max_calls = max_calls
        self.called = False
        """Whether there was a call."""

    def push(self, text: str) -> list[Part]:
        """What is certain after the next piece of text."""
        thought = ""
        if self._reasoning is not None:
            thought, text = self._reasoning.push(text)
        return self._parts(thought, text, over=False)

    def flush(self) -> list[Part]:
        """The answer is over: what was held back."""
        thought = text = ""
        if self._reasoning is not None:
            thought, text = self._reasoning.flush()
        return self._parts(thought, text, over=True)

    def _parts(self, thought: str, text: str, *, over: bool) -> list[Part]:
        parts: list[Part] = [Reasoning(thought)] if thought else []
        if self._tools is None:
            if text:
                parts.append(Content(text))
            return parts
        found = self._tools.push(text) if text else []
        if over:
            found += self._tools.flush()
        return [*parts, *self._counted(found)]

    def _counted(self, found: Iterable[Part]) -> Iterable[Part]:
        for part in found:
            if isinstance(part, CallBegin | CallArguments):
                self.called = True
                if self._max_calls is not None and part.call >= self._max_calls:
                    continue
            yield part


def answer_parser(
    *,
    reasoning: ReasoningFamily | None = None,
    tools: ToolFamily | Literal["listed"] | None = None,
    known: Iterable[str] = (),
    named: str | None = None,
    max_calls: int | None = None,
) -> AnswerParser | None:
    """A parser for one answer; None when there is nothing to look for.

    `tools` is the family that writes calls of the tools `known`; `listed` and `named` (the name of
    the one tool) are for answers guided to be a list of calls, or the arguments of one.
    """
    splitter = None if reasoning is None else ReasoningSplitter(MARKS[reasoning])
    parser: ToolParser | None = None
    if named is not None:
        parser = Named(named)
    elif tools == "listed":
        parser = Listed(frozenset(), begun=True)
    elif tools is not None:
        parser = _FAMILIES[tools](frozenset(known))
    if splitter is None and parser is None:
        return None
    return AnswerParser(splitter, parser, max_calls=max_calls)


def markers(reasoning: ReasoningFamily | None, tools: ToolFamily | None) -> tuple[str, ...]:
    """Special tokens whose text the parsers need to see."""
    marks = () if reasoning is None else MARKS[reasoning][:2]
    return (*marks, *(() if tools is None else _MARKERS[tools]))
