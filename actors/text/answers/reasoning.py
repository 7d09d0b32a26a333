"""What stands between the marks of thinking.

deepseek_r1   <think>...</think>, begun by the chat template: the answer opens within it
qwen3         <think>...</think>, if the answer begins with it
mistral       [THINK]...[/THINK], if the answer begins with it
granite       Here is my thought process: ... Here is my response:
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from actors.text.answers.names import ReasoningFamily
from actors.text.answers.scanning import cut


class Marks(NamedTuple):
    open: str
    close: str
    begun: bool = False
    """The answer is within from its beginning; the opening mark may still be repeated."""


MARKS: dict[ReasoningFamily, Marks] = {
    "deepseek_r1": Marks("<think>", "</think>", begun=True),
    "qwen3": Marks("<think>", "</think>"),
    "mistral": Marks("[THINK]", "[/THINK]"),
    "granite": Marks("Here is my thought process:", "Here is my response:"),
}


class ReasoningSplitter:
    """Divides an answer in two. White space around the marks belongs to neither part."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._state: Literal["before", "within", "behind", "content"] = "before"
        self._rest = ""
        self._spaces = ""
        self._started = False

    def push(self, text: str) -> tuple[str, str]:
        """Reasoning and content that are certain after the next piece."""
        if self._state == "content":
            return "", text
        rest, self._rest = self._rest + text, ""
        if self._state == "before":
            bare = rest.lstrip()
            if bare.startswith(self._marks.open):
                rest = bare[len(self._marks.open) :]
                self._state = "within"
            elif self._marks.open.startswith(bare):  # also when it is white space only
                self._rest = rest
                return "", ""
            elif not self._marks.begun:
                self._state = "content"
                return "", rest
            self._state = "within"
        reasoning = ""
        if self._state == "within":
            before, mark, rest = cut(rest, (self._marks.close,))
            reasoning = self._reasoning(before)
            if not mark:
                self._rest = rest
                return reasoning, ""
            self._state = "behind"
        content = rest.lstrip()
        if content:
            self._state = "content"
        return reasoning, content

    def flush(self) -> tuple[str, str]:
        """The answer is over: what was held back."""
        rest, self._rest = self._rest, ""
        if self._state == "within" or (self._state == "before" and self._marks.begun):
            return self._reasoning(rest).rstrip(), ""
        return "", rest

    def _reasoning(self, text: str) -> str:
        """Less the white space at its beginning, and that at its end until more follows."""
        text = self._spaces + text
        kept = text.rstrip()
        self._spaces = text[len(kept) :] if kept or self._started else ""
        if not kept:
            return ""
        found = kept if self._started else kept.lstrip()
        self._started = True
        return found
