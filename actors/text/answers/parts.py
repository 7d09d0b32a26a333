"""The parts of an answer, and what reads them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple


class Content(NamedTuple):
    """Text for the reader."""

    text: str


class Reasoning(NamedTuple):
    """Text that the model wrote for itself."""

    text: str


class CallBegin(NamedTuple):
    """The model calls a tool; its arguments follow."""

    call: int
    """Its number in the answer, from 0."""
    name: str


class CallArguments(NamedTuple):
    """The next piece of a call's arguments, which together are JSON if the model can write it."""

    call: int
    text: str


Part = Content | Reasoning | CallBegin | CallArguments


class ToolParser(ABC):
    """Reads one answer of a family of models."""

    markers: ClassVar[tuple[str, ...]] = ()
    """Special tokens that must be part of the text for this parser to work."""

    @abstractmethod
    def push(self, text: str) -> list[Part]:
        """What is certain after the next piece of text."""

    @abstractmethod
    def flush(self) -> list[Part]:
        """The answer is over: what was held back."""


class Writer:
    """Collects parts, numbers the calls, and keeps white space around calls from being content."""

    def __init__(self) -> None:
        self.calls = 0
        self._parts: list[Part] = []
        self._spaces = ""
        self._behind_call = False

    def content(self, text: str) -> None:
        """Text for the reader. White space at its end waits for what follows."""
        text = self._spaces + text
        if self._behind_call:
            text = text.lstrip()
        kept = text.rstrip()
        self._spaces = text[len(kept) :]
        if kept:
            self._behind_call = False
            self._parts.append(Content(kept))

    def begin(self, name: str) -> None:
        """A call; it is the one that `arguments` add to from now on."""
        self._spaces, self._behind_call = "", True
        self._parts.append(CallBegin(self.calls, name))
        self.calls += 1

    def arguments(self, text: str) -> None:
        """More of the arguments of the call begun last."""
        last = self._parts[-1] if self._parts else None
        if isinstance(last, CallArguments) and last.call == self.calls - 1:
            self._parts[-1] = CallArguments(last.call, last.text + text)
        elif text:
            self._parts.append(CallArguments(self.calls - 1, text))

    def take(self) -> list[Part]:
        """What has come since the last time."""
        parts, self._parts = self._parts, []
        return parts

    def end(self) -> list[Part]:
        """The answer is over; its last white space is content unless it stands behind a call."""
        if self._spaces and not self.calls:
            self._parts.append(Content(self._spaces))
        self._spaces = ""
        return self.take()
