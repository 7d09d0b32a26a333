"""A YAML text as plain data that remembers where each key and value stands.

Scalars follow YAML 1.2's core schema, not PyYAML's 1.1: `no`, `on` and `12:30` are strings, only
`true` and `false` are booleans. In a file where `restart: no` or a port mapping would silently
become something else, the smaller schema has fewer surprises.

`.inf` and `.nan` are strings too, and integers end at 64 bits: options travel as JSON.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from yaml.composer import Composer, ComposerError
from yaml.error import Mark, MarkedYAMLError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from supervisor.topology.environment import SubstitutionError, substitute
from supervisor.topology.errors import Problem, TopologyError
from supervisor.topology.places import Path, Place, Places

MAX_VALUES = 50_000
"""Values of one document with its aliases expanded: ten lines of YAML can say 10**9 of them."""
MAX_DEPTH = 50
"""Levels of nesting, likewise."""

Plain: TypeAlias = Any
"""Dicts with string keys, lists, strings, numbers, booleans and None."""

_TAG = "tag:yaml.org,2002:"
_MERGE = "<<"


class Document(msgspec.Struct, frozen=True):
    """Plain data, and a place for every path in it."""

    source: str
    """The name of the file, for messages."""
    text: str
    data: Plain
    places: dict[Path, Places]

    def problem(
        self, path: Path, message: str, suggestion: str | None = None, *, at_key: bool = False
    ) -> Problem:
        """A mistake at `path`. What has no place of its own has that of what encloses it."""
        known = path
        while known and known not in self.places:
            known = known[:-1]
        places = self.places.get(known, Places(Place(self.source), Place(self.source)))
        return Problem(places.key if at_key else places.value, path, message, suggestion)

    def error(self, problems: list[Problem]) -> TopologyError:
        """The problems, together with the text they are about."""
        return TopologyError(problems, self.text, file=self.source)


def read_yaml(text: str, source: str, environ: Mapping[str, str] | None) -> Document:
    """Read one YAML document; anchors and merges are expanded, `${VAR}` is replaced if there is an
    environment to take it from.

    Raises TopologyError with the first mistake of the syntax, or with every other mistake: a
    duplicate key, a key that is not a scalar, an unknown tag, an unset variable, a limit passed.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except ReaderError as error:
        message = f"expected text; found the control character {chr(error.character)!r}"
        raise TopologyError(
            [Problem(_at(text, error.position, source), (), message)], text
        ) from None
    except MarkedYAMLError as error:
        raise TopologyError([_syntax_problem(error, text, source)], text) from None
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", passed to chr()
        place = Place(source, loader.line + 1, loader.column + 1)
        message = "expected valid YAML; found an escape that is no character"
        raise TopologyError([Problem(place, (), message)], text) from None
    builder = _Builder(source, environ)
    start = Place(source, 1, 1)
    builder.places[()] = Places(start, start)
    data = None if node is None else builder.build(node, ())
    document = Document(source, text, data, builder.places)
    if builder.problems:
        raise document.error(builder.problems)
    return document


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """A plain YAML scalar as data. Raises ValueError when it is a number no computer here holds."""
    resolve: Any = _Loader("").resolve
    return _construct(str(resolve(ScalarNode, text, (True, False))), text)


class _Resolver(BaseResolver):
    pass


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", list("-+.0123456789")),
):
    _Resolver.add_implicit_resolver(f"{_TAG}{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _Loader(Reader, Scanner, Parser, Composer, _Resolver):
    """PyYAML up to the node graph; what its constructors would do happens in `_Builder`."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        _Resolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        self._depth += 1
        if self._depth > MAX_DEPTH:  # before Python's own limit on recursion
            event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # not in the stubs
            raise ComposerError(
                None, None, f"more than {MAX_DEPTH} levels of nesting", event.start_mark
            )
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Builder:
    """Walks the node graph by path, so that what an alias repeats has each of its paths."""

    def __init__(self, source: str, environ: Mapping[str, str] | None) -> None:
        self.source = source
        self.environ = environ
        self.places: dict[Path, Places] = {}
        self.problems: list[Problem] = []
        self._open: list[Node] = []
        self._values = 0

    def build(self, node: Node, path: Path, key: Node | None = None) -> Plain:
        self.places[path] = Places(self._place(key or node), self._place(node))
        if not self._enter(node, path):
            return None
        try:
            match node:
                case MappingNode():
                    return self._mapping(node, path)
                case SequenceNode():
                    self._check_tag(node, "seq", path)
                    return [self.build(item, (*path, i)) for i, item in enumerate(node.value)]
                case ScalarNode():
                    return self._scalar(node, path)
                case _:
                    raise AssertionError("a YAML graph has three kinds of nodes")
        finally:
            self._open.pop()

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Plain]:
        self._check_tag(node, "map", path)
        return {
            name: self.build(value, (*path, name), key)
            for name, (key, value) in self._pairs(node, path).items()
        }

    def _pairs(self, node: MappingNode, path: Path) -> dict[str, tuple[Node, Node]]:
        """The node's own pairs, then those it merges that it does not have."""
        own: dict[str, tuple[Node, Node]] = {}
        merged: dict[str, tuple[Node, Node]] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode) or not key.value:
                self._problem(key, path, "expected a key; found none, or one that is no scalar")
            elif key.value == _MERGE and key.style is None:
                merged |= self._merged(value, path) | merged
            elif key.value in own:
                first = self._place(own[key.value][0]).line
                message = f"duplicate key '{key.value}'; found first on line {first}"
                self._problem(key, (*path, key.value), message)
            elif _unprintable(key.value):
                self._problem(key, path, "expected a key; found one that is not Unicode text")
            else:
                own[key.value] = (key, value)
        return own | {name: pair for name, pair in merged.items() if name not in own}

    def _merged(self, node: Node, path: Path) -> dict[str, tuple[Node, Node]]:
        sources = node.value if isinstance(node, SequenceNode) else [node]
        pairs: dict[str, tuple[Node, Node]] = {}
        for source in sources:
            if not isinstance(source, MappingNode):
                message = "expected a mapping, or a list of them, to merge; found something else"
                self._problem(source, (*path, _MERGE), message)
            elif self._enter(source, path):
                pairs = self._pairs(source, path) | pairs  # the earlier one wins
                self._open.pop()
        return pairs

    def _scalar(self, node: ScalarNode, path: Path) -> Plain:
        text, tag = node.value, str(node.tag)
        try:
            if self.environ is not None and tag == f"{_TAG}str" and "${" in text:
                text, whole = substitute(text, self.environ)
                if whole and node.style != "'":
                    return resolve_scalar(_clean(text))
            return _construct(tag, _clean(text))
        except SubstitutionError as error:
            self._problem(node, path, str(error), error.suggestion)
        except ValueError as error:
            self._problem(node, path, str(error))
        return None

    def _enter(self, node: Node, path: Path) -> bool:
        self._values += 1
        if any(node is enclosing for enclosing in self._open):
            self._problem(node, path, "expected a value that ends; found one that contains itself")
        elif len(self._open) >= MAX_DEPTH:
            self._problem(node, path, f"expected at most {MAX_DEPTH} levels; found more")
        elif self._values > MAX_VALUES:
            if self._values == MAX_VALUES + 1:  # said once; the rest is left unread
                message = f"expected at most {MAX_VALUES} values; found more, aliases expanded"
                self._problem(node, path, message)
        else:
            self._open.append(node)
            return True
        return False

    def _check_tag(self, node: Node, expected: str, path: Path) -> None:
        if node.tag != f"{_TAG}{expected}":
            self._problem(node, path, f"expected no tag; found '{node.tag}'")

    def _place(self, node: Node) -> Place:
        return _place(node.start_mark, self.source)

    def _problem(self, node: Node, path: Path, message: str, suggestion: str | None = None) -> None:
        self.problems.append(Problem(self._place(node), path, message, suggestion))


def _construct(tag: str, text: str) -> str | int | float | bool | None:
    """A scalar of a known tag. Raises ValueError with what was expected and found."""
    match tag.removeprefix(_TAG):
        case "str":
            return text
        case "null" if text in ("", "~", "null", "Null", "NULL"):
            return None
        case "bool" if text.lower() in ("true", "false"):
            return text.lower() == "true"
        case "int" if re.fullmatch(r"[-+]?[0-9]{1,20}|0o[0-7]{1,22}|0x[0-9a-fA-F]{1,16}", text):
            integer = int(text, 10 if text.lstrip("-+").isdigit() else 0)
            if -(2**63) <= integer < 2**64:
                return integer
            raise ValueError("expected an integer of 64 bits; found a larger one")
        case "int" if re.fullmatch(r"[-+]?[0-9]+|0[ox][0-9a-fA-F]+", text):
            raise ValueError("expected an integer of 64 bits; found a larger one")
        case "float" if re.fullmatch(r"[-+.0-9eE]+", text):
            number = float(text)
            if math.isfinite(number):
                return number
            raise ValueError("expected a number; found one too large")
        case _:
            raise ValueError(f"expected no tag; found '{tag}' on '{text}'")


def _clean(text: str) -> str:
    if _unprintable(text):
        raise ValueError("expected text; found a NUL character or half of a surrogate pair")
    return text


def _unprintable(text: str) -> bool:
    # Both can be written as an escape, and neither can reach a process's environment or a socket.
    return any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text)


def _at(text: str, index: int, source: str) -> Place:
    lines = text[:index].split("\n")
    return Place(source, len(lines), len(lines[-1]) + 1)


def _place(mark: Mark, source: str) -> Place:
    return Place(source, mark.line + 1, mark.column + 1)


def _syntax_problem(error: MarkedYAMLError, text: str, source: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(source) if mark is None else _place(mark, source)
    if mark is not None and text[mark.index : mark.index + 1] == "\t":
        return Problem(place, (), "expected spaces; found a tab, which is no space in YAML")
    if mark is not None and text[mark.index - 1 : mark.index + 1] == "${":
        return Problem(place, (), "expected ${...} in quotes, as it stands between {} or []")
    said = " ".join(part for part in (error.context, error.problem) if part)
    return Problem(place, (), f"expected valid YAML; {said}")
