"""JSON as a model writes it, read one character at a time: values, and calls that are objects."""

from __future__ import annotations

import enum
import json

from actors.text.answers.parts import Writer

NAMES = frozenset({"name"})
ARGUMENTS = frozenset({"arguments", "parameters"})
MAX_NAME_CHARACTERS = 1000
"""What is longer than this, with no arguments behind it yet, is no tool's name."""
_SPACE = " \t\r\n"


class JsonValue:
    """Finds the end of an object or array."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def takes(self, character: str) -> bool:
        """Take the next character; False with the one that ends the value."""
        if self._in_string:
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._in_string = False
        elif character == '"':
            self._in_string = True
        elif character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth -= 1
        return self._depth > 0 or self._in_string


class _At(enum.Enum):
    OPENING = enum.auto()
    KEY = enum.auto()
    IN_KEY = enum.auto()
    COLON = enum.auto()
    VALUE = enum.auto()
    IN_VALUE = enum.auto()
    BEHIND_VALUE = enum.auto()


class CallObject:
    """Reads `{"name": ..., "arguments": {...}}`, keys in any order, others passed over.

    The call is written as soon as its name is known, its arguments while they come. An object
    without a name, or with one that is not among `known`, or no JSON, is no call: `raw` is then
    what was read of it, and nothing was written.
    """

    def __init__(self, writer: Writer, known: frozenset[str] | None) -> None:
        self.over = False
        self.is_call = False
        self.failed = False
        self._writer = writer
        self._known = known
        self._raw: list[str] = []
        self._at = _At.OPENING
        self._key = ""
        self._value: list[str] = []
        """Its characters: joined once, as an answer may be one long value."""
        self._nested: JsonValue | None = None
        self._waiting: str | None = None
        """Arguments that came before the name."""
        self._has_arguments = False
        self._escaped = False

    @property
    def raw(self) -> str:
        """What was read of it, until it was known to be a call."""
        return "".join(self._raw)

    def push(self, text: str) -> str:
        """Read on; returns what is behind the object, or behind the place where it failed."""
        for at, character in enumerate(text):
            if not self.is_call:
                self._raw.append(character)
            self._take(character)
            if self.over or self.failed:
                return text[at + 1 :]
        return ""

    def _take(self, character: str) -> None:  # noqa: PLR0912, C901 - one branch a state
        match self._at:
            case _At.OPENING:
                if character == "{":
                    self._at = _At.KEY
                elif character not in _SPACE:
                    self._fail()
            case _At.KEY:
                if character == '"':
                    self._key, self._at = "", _At.IN_KEY
                elif character == "}":
                    self._end()
                elif character not in _SPACE and character != ",":
                    self._fail()
            case _At.IN_KEY:
                if character == '"':
                    self._at = _At.COLON
                else:
                    self._key += character
            case _At.COLON:
                if character == ":":
                    self._at = _At.VALUE
                elif character not in _SPACE:
                    self._fail()
            case _At.VALUE:
                if character not in _SPACE:
                    self._begin_value(character)
            case _At.IN_VALUE:
                self._in_value(character)
            case _At.BEHIND_VALUE:
                if character == ",":
                    self._at = _At.KEY
                elif character == "}":
                    self._end()
                elif character not in _SPACE:
                    self._fail()

    # -- values --------------------------------------------------------------------------------

    def _begin_value(self, character: str) -> None:
        self._value, self._escaped, self._at = [], False, _At.IN_VALUE
        self._nested = None
        if character in ",}":
            self._fail()
        elif character in "{[":
            self._nested = JsonValue()
            self._in_value(character)
        else:
            self._value.append(character)

    def _in_value(self, character: str) -> None:
        if self._nested is not None:
            goes_on = self._nested.takes(character)
            self._nested_text(character)
            if not goes_on:
                self._at = _At.BEHIND_VALUE
                self._value_read()
        elif self._value[0] == '"':
            self._value.append(character)
            if self._escaped:
                self._escaped = False
            elif character == "\\":
                self._escaped = True
            elif character == '"':
                self._at = _At.BEHIND_VALUE
                self._value_read()
        elif character in ",}" or character in _SPACE:
            self._value_read()
            self._at = _At.BEHIND_VALUE
            self._take(character)
        else:
            self._value.append(character)

    def _nested_text(self, character: str) -> None:
        """A nested value goes out as it comes, if it is the arguments of a call known by name."""
        if self._key in ARGUMENTS and self.is_call:
            self._writer.arguments(character)
        else:
            self._value.append(character)

    def _value_read(self) -> None:
        if self._key in NAMES and not self.is_call:
            self._name()
        elif self._key in ARGUMENTS and not self._has_arguments:
            self._has_arguments = True
            if self._nested is None or not self.is_call:
                self._arguments(_as_arguments("".join(self._value)))

    def _name(self) -> None:
        name = _loaded("".join(self._value))
        if not isinstance(name, str) or (self._known is not None and name not in self._known):
            self._fail()
            return
        self.is_call = True
        self._writer.begin(name)
        if self._waiting is not None:
            self._writer.arguments(self._waiting)

    def _arguments(self, text: str) -> None:
        if self.is_call:
            self._writer.arguments(text)
        else:
            self._waiting = text

    # -- ends ----------------------------------------------------------------------------------

    def _end(self) -> None:
        if not self.is_call:
            self._fail()
            return
        self.over = True
        if not self._has_arguments:
            self._writer.arguments("{}")

    def _fail(self) -> None:
        self.failed = True


def sound(text: str) -> str:
    """Without halves of characters, which a model can write as escapes and nobody can encode."""
    return text.encode("utf-8", "replace").decode()


def _loaded(text: str) -> object:
    """None for what is no JSON, or nested too deeply to be read."""
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return sound(value) if isinstance(value, str) else value


def _as_arguments(text: str) -> str:
    """Some models put the arguments' JSON into a string once more; null stands for none."""
    value = _loaded(text) if text[:1] == '"' else text
    if value is None:
        return text
    return "{}" if value == "null" else str(value)
