"""Llama 3.2 and 4, and others: the answer is a list of Python calls.

[weather(city="Oslo", days=3), time()]
"""

from __future__ import annotations

import ast
import json

from actors.text.answers.calls import sound
from actors.text.answers.parts import Part, ToolParser, Writer

START, END = "<|python_start|>", "<|python_end|>"
_SPACE = " \t\r\n"
MAX_CALL_CHARACTERS = 100_000
"""A call longer than this is taken for text: it has to be read as a whole."""


class Pythonic(ToolParser):
    """A call is told when it is complete, its arguments in one piece; arguments are literals. An
    answer that does not begin like such a list, or calls what is no tool, is content."""

    markers = (START, END)

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._writer = Writer()
        self._rest = ""
        self._listing = True
        self._over = False
        self._read = 0
        self._depth = 0
        self._quote = ""
        self._escaped = False

    def push(self, text: str) -> list[Part]:
        if self._over:
            return []
        if not self._listing:
            self._writer.content(text)
            return self._writer.take()
        self._rest += text
        if self._writer.calls == 0 and not self._depth and not self._opened():
            return self._writer.take()
        self._scan()
        return self._writer.take()

    def _opened(self) -> bool:
        """Whether the opening bracket was read; what is no list goes out as content."""
        bare = self._rest.lstrip(_SPACE)
        if bare.startswith(START):
            bare = bare[len(START) :].lstrip(_SPACE)
        elif bare and START.startswith(bare):
            return False
        if bare.startswith("["):
            self._rest, self._read, self._depth = bare, 1, 1
            return True
        if bare:
            self._give_up()
        return False

    def _scan(self) -> None:
        """Read on to the ends of calls; depth 1 is within the list."""
        while self._listing and not self._over and self._read < len(self._rest):
            character = self._rest[self._read]
            self._read += 1
            if self._quote:
                self._in_quotes(character)
            elif character in "'\"":
                self._quote = character
            elif character in "([{":
                self._depth += 1
            elif character in ")]}":
                self._depth -= 1
                if self._depth == 1 and character == ")":
                    self._call()
                elif self._depth == 0:
                    self._over = self._writer.calls > 0
                    if not self._over:
                        self._give_up()
            if self._read > MAX_CALL_CHARACTERS:
                self._give_up()

    def _in_quotes(self, character: str) -> None:
        if self._escaped:
            self._escaped = False
        elif character == "\\":
            self._escaped = True
        elif character == self._quote:
            self._quote = ""

    def _call(self) -> None:
        source = self._rest[: self._read].lstrip("[," + _SPACE)
        found = _parse(source)
        if found is None or found[0] not in self._known:
            self._give_up()
            return
        self._writer.begin(found[0])
        self._writer.arguments(found[1])
        self._rest, self._read = self._rest[self._read :], 0

    def _give_up(self) -> None:
        """It is text after all, from here on."""
        self._listing = False
        self._writer.content(self._rest)
        self._rest = ""

    def flush(self) -> list[Part]:
        if self._listing and not self._over:
            self._give_up()
        return self._writer.end()


def _parse(source: str) -> tuple[str, str] | None:
    """Name and arguments as JSON of a call in Python; None when it is none, or not of literals."""
    try:
        call = ast.parse(source, mode="eval").body
        if not isinstance(call, ast.Call) or call.args:
            return None
        arguments = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
        if None in arguments:  # **something
            return None
        text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
        return ast.unparse(call.func), sound(text)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return None
