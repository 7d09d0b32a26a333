"""Checks plain data against a Struct, and an actor's options against its class.

`check` is the pure half: where `msgspec.convert` stops at the first mistake and lets unknown keys
pass, it reports every mistake it can tell apart, with the path of each and the nearest valid word.
The supervisor reads its own file with it.

The other half is a process: `python -m actors.runtime.options check|schema BASE_DIR` reads a JSON
list of `Inquiry` from stdin and prints a JSON list of as many `Answer`. It exists so that the
supervisor can know an actor's options without ever importing the actor (and torch with it).
"""

from __future__ import annotations

import difflib
import enum
import importlib
import os
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import msgspec

Path: TypeAlias = tuple[str | int, ...]
Kind: TypeAlias = Any
"""A type as msgspec takes it: a class, a union, an Annotated."""
Forms: TypeAlias = Mapping[str, Callable[[object], object]]
"""For a type annotated with `Meta(extra={"form": name})`: turns what was written into what the type
takes, or raises ValueError with the rest of a sentence that begins "expected"."""

NO_FORMS: Forms = types.MappingProxyType({})
_SHOWN_CHARACTERS = 60
_WORDS = {
    "int": "an integer",
    "float": "a number",
    "str": "a string",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "a mapping",
}
_MSGSPEC_TEXT = re.compile(
    r"(?P<text>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL
)
_EXPECTED = re.compile(r"Expected `(?P<type>[^`]*)`(?P<limit>.*?)(?:, got .*)?", re.DOTALL)


class Fault(msgspec.Struct, frozen=True):
    """One mistake in a piece of plain data."""

    path: Path
    message: str
    suggestion: str | None = None
    """The nearest valid key or value."""
    at: Literal["key", "value"] = "value"
    """Which end of the path is wrong."""


class Inquiry(msgspec.Struct, frozen=True):
    """Asks about one actor of a topology."""

    path: Path
    """Where the actor is described: `options` and `actor` are below it."""
    actor: str
    """`package.module:Class`."""
    options: dict[str, Any] = {}


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about the actor of one inquiry."""

    faults: list[Fault] = []
    schema: dict[str, Any] | None = None
    """The JSON Schema of its options, when asked for; refers into `definitions`."""
    definitions: dict[str, Any] = {}
    """To be placed under `$defs`; names begin with the class path, so that they never collide."""


def nearest(word: str, valid: Iterable[str]) -> str | None:
    """The valid word that `word` most likely was meant to be, if any is close."""
    close = difflib.get_close_matches(word, list(valid), n=1)
    return close[0] if close else None


def show(value: object) -> str:
    """A value as an error message names it: short, and in the words of YAML."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            text = repr(value)
            if len(text) > _SHOWN_CHARACTERS:
                text = text[: _SHOWN_CHARACTERS - 4] + "...'"
            return text
        case Mapping():
            return "a mapping"
        case Sequence():
            return "a list"
        case _:
            return str(value)[:_SHOWN_CHARACTERS]


def check(value: object, kind: Kind, *, forms: Forms = NO_FORMS) -> tuple[Any, list[Fault]]:
    """Convert plain data (dicts, lists, scalars) to `kind`, a msgspec type, strictly.

    Returns the converted value and no faults, or None and every fault found. Keys that a Struct
    does not have are faults whether or not it forbids them, at any depth that is reached through
    Structs, lists, dicts and unions of these.
    """
    checker = _Checker(forms)
    plain = checker.visit(value, kind, ())
    if checker.faults:
        return None, checker.faults
    return msgspec.convert(plain, kind, str_keys=True), []


class _Checker:
    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self.faults: list[Fault] = []

    def visit(self, value: object, kind: Kind, path: Path) -> object:
        """Record the faults of `value`; return it as `msgspec.convert` will take it."""
        form = self._form(kind)
        members = list(_members(kind))
        if form is not None and not (value is None and type(None) in members):
            try:
                formed = form(value)
            except ValueError as error:
                self._fault(path, f"expected {error}; found {show(value)}")
                return value
            self._convert(formed, kind, members, path)
            return formed
        before = len(self.faults)
        if isinstance(value, dict):
            value = self._visit_mapping(value, members, path)
        elif isinstance(value, list):
            items = [get_args(m)[0] for m in members if _is_uniform_array(m)]
            if len(items) == 1:
                value = [self.visit(v, items[0], (*path, i)) for i, v in enumerate(value)]
        if len(self.faults) == before:
            self._convert(value, kind, members, path)
        return value

    def _visit_mapping(
        self, value: dict[str, object], members: list[Any], path: Path
    ) -> dict[str, object]:
        structs = [m for m in members if _is_struct(m)]
        mappings = [get_args(m) for m in members if _is_mapping(m)]
        if structs:
            struct = self._choose(value, structs, path)
            return value if struct is None else self._visit_struct(value, struct, path)
        if len(mappings) == 1:
            key_kind, item_kind = mappings[0]
            for key in value:
                self._visit_key(key, key_kind, path)
            return {key: self.visit(item, item_kind, (*path, key)) for key, item in value.items()}
        return value

    def _visit_key(self, key: str, kind: Kind, path: Path) -> None:
        form = self._form(kind)
        mapping: Kind = dict[kind, None]
        try:
            if form is not None:
                form(key)
            msgspec.convert({key: None}, mapping, str_keys=True)
        except msgspec.ValidationError as error:
            text = str(error).rpartition(" - at ")[0]
            self._fault((*path, key), _reword(text, key), at="key")
        except ValueError as error:
            self._fault((*path, key), f"expected {error}; found {show(key)}", at="key")

    def _choose(self, value: dict[str, object], structs: list[Any], path: Path) -> Kind | None:
        """The member of a union of tagged Structs that the value says it is."""
        if len(structs) == 1:
            return structs[0]
        tag_field = structs[0].__struct_config__.tag_field
        by_tag = {struct.__struct_config__.tag: struct for struct in structs}
        if tag_field not in value:
            self._fault(path, f"missing key '{tag_field}', one of {_listed(by_tag)}")
            return None
        tag = value[tag_field]
        # A tag may be given as anything, a list included, which cannot be looked up.
        struct = by_tag.get(tag) if isinstance(tag, (str, int)) else None
        if struct is None:
            self._fault_choice((*path, tag_field), tag, by_tag)
        return struct

    def _visit_struct(
        self, value: dict[str, object], struct: Kind, path: Path
    ) -> dict[str, object]:
        fields = {field.encode_name: field for field in msgspec.structs.fields(struct)}
        tag_field = struct.__struct_config__.tag_field
        plain: dict[str, object] = {}
        for key, item in value.items():
            if key in fields:
                plain[key] = self.visit(item, fields[key].type, (*path, key))
            elif key == tag_field:
                plain[key] = item
            else:
                expected = f"expected one of {_listed(fields)}" if fields else "expected no keys"
                message = f"unknown key '{key}'; {expected}"
                self._fault((*path, key), message, nearest(key, fields), at="key")
        for key, field in fields.items():
            if field.required and key not in value:
                self._fault(path, f"missing key '{key}'")
        return plain

    def _convert(self, value: object, kind: Kind, members: list[Any], path: Path) -> None:
        try:
            msgspec.convert(value, kind, str_keys=True)
        except msgspec.ValidationError as error:
            choices = _choices(members)
            if choices is not None and not isinstance(value, (dict, list)):
                self._fault_choice(path, value, choices)
                return
            matched = _MSGSPEC_TEXT.fullmatch(str(error))
            assert matched is not None, "every part of the pattern may be empty"
            below = _parse_path(matched["path"] or "", value)
            self._fault((*path, *below), _reword(matched["text"], _at(value, below)))

    def _form(self, kind: Kind) -> Callable[[object], object] | None:
        """The form of the type itself, or of an alternative in a union."""
        origin: Any = get_origin(kind)
        if origin is Annotated:
            for note in get_args(kind)[1:]:
                if isinstance(note, msgspec.Meta) and "form" in (note.extra or {}):
                    return self.forms.get((note.extra or {})["form"])
        if origin is Union or origin is types.UnionType:
            found = (self._form(member) for member in get_args(kind))
            return next((form for form in found if form is not None), None)
        return None

    def _fault_choice(self, path: Path, value: object, choices: Collection[object]) -> None:
        suggestion = nearest(value, map(str, choices)) if isinstance(value, str) else None
        self._fault(path, f"expected one of {_listed(choices)}; found {show(value)}", suggestion)

    def _fault(
        self,
        path: Path,
        message: str,
        suggestion: str | None = None,
        at: Literal["key", "value"] = "value",
    ) -> None:
        self.faults.append(Fault(path, message, suggestion, at))


def _members(kind: Kind) -> Iterable[Any]:
    """The alternatives of a type, without their annotations."""
    origin: Any = get_origin(kind)
    if origin is Annotated:
        yield from _members(get_args(kind)[0])
    elif origin is Union or origin is types.UnionType:
        for member in get_args(kind):
            yield from _members(member)
    else:
        yield kind


def _is_struct(kind: Kind) -> bool:
    return (
        isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and not kind.__struct_config__.array_like
    )


def _is_mapping(kind: Kind) -> bool:
    origin: Any = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _is_uniform_array(kind: Kind) -> bool:
    args = get_args(kind)
    origin: Any = get_origin(kind)
    if origin is tuple:
        return len(args) == 2 and args[1] is Ellipsis
    return isinstance(origin, type) and issubclass(origin, Collection) and len(args) == 1


def _choices(members: list[Any]) -> list[object] | None:
    """Every value the type allows, when it is made of Literals and Enums alone."""
    choices: list[object] = []
    for member in members:
        if get_origin(member) is Literal:
            choices += get_args(member)
        elif isinstance(member, type) and issubclass(member, enum.Enum):
            choices += [item.value for item in member]
        elif member is type(None):
            choices.append(None)
        else:
            return None
    return choices


def _listed(words: Iterable[object]) -> str:
    return ", ".join("null" if word is None else str(word) for word in words)


def _parse_path(text: str, value: object) -> Path:
    """The path msgspec names, as far as it names one: `[...]` is some entry of a mapping."""
    path: list[str | int] = []
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", text.split("[...]", maxsplit=1)[0]):
        path.append(name or int(index))
    return tuple(path) if _at(value, path) is not _NOTHING else ()


_NOTHING = object()


def _at(value: object, path: Iterable[str | int]) -> object:
    for part in path:
        match value, part:
            case dict(), str() if part in value:
                value = value[part]
            case list(), int() if part < len(value):
                value = value[part]
            case _:
                return _NOTHING
    return value


def _reword(text: str, found: object) -> str:
    """The sentence of msgspec in the words of a person who wrote YAML."""
    matched = _EXPECTED.fullmatch(text)
    if matched is None:
        said = f"{text[:1].lower()}{text[1:]}".replace("`", "'")
        # What a Struct's own __post_init__ says needs no "found a mapping".
        return said if isinstance(found, (dict, list)) else f"{said}; found {show(found)}"
    kinds = " or ".join(_WORDS.get(word, word) for word in matched["type"].split(" | "))
    return f"expected {kinds}{matched['limit']}; found {show(found)}"


def answer(inquiry: Inquiry, mode: Literal["check", "schema"]) -> Answer:
    """Import the actor's class and check its options, or describe them. Raises nothing."""
    loaded = _load(inquiry)
    if isinstance(loaded, Fault):
        return Answer(faults=[loaded])
    options = getattr(loaded, "Options", None)
    if options is None:
        options = msgspec.defstruct("Options", [])
    if not _is_struct(options):
        message = f"{inquiry.actor}.Options must be a msgspec.Struct; found {options!r}"
        return Answer(faults=[Fault((*inquiry.path, "actor"), message)])
    if mode == "check":
        _, faults = check(inquiry.options, options)
        below = (*inquiry.path, "options")
        return Answer(
            faults=[msgspec.structs.replace(f, path=(*below, *f.path)) for f in faults],
        )
    prefix = f"{inquiry.actor}."
    try:
        (schema,), definitions = msgspec.json.schema_components(
            [options], ref_template=f"#/$defs/{prefix}{{name}}"
        )
    except TypeError as error:  # a type that JSON Schema cannot say
        return Answer(faults=[Fault((*inquiry.path, "actor"), f"has no JSON Schema: {error}")])
    named = {prefix + name: definition for name, definition in definitions.items()}
    return Answer(schema=schema, definitions=named)


def _load(inquiry: Inquiry) -> type | Fault:
    path = (*inquiry.path, "actor")
    module_name, _, class_name = inquiry.actor.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - an actor's module may raise anything
        return Fault(path, f"cannot import '{module_name}': {type(error).__name__}: {error}")
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        classes = [name for name, thing in vars(module).items() if isinstance(thing, type)]
        message = f"expected a class in '{module_name}'; found no class '{class_name}'"
        return Fault(path, message, nearest(class_name, classes))
    return found


def main(arguments: Sequence[str]) -> int:
    """`check|schema BASE_DIR`, inquiries on stdin, answers on stdout."""
    mode, base_dir = arguments
    assert mode in ("check", "schema"), mode
    inquiries = msgspec.json.decode(sys.stdin.buffer.read(), type=list[Inquiry])
    # Modules print while they are imported, and native code behind them too: only the answers may
    # reach the descriptor that the supervisor reads.
    answers_to = os.dup(1)
    os.dup2(2, 1)
    os.chdir(base_dir)
    sys.path.insert(0, base_dir)  # as the process that will host the actors does
    answers = [answer(inquiry, "check" if mode == "check" else "schema") for inquiry in inquiries]
    with os.fdopen(answers_to, "wb") as stream:
        stream.write(msgspec.json.encode(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
