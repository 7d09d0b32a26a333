"""Strict checking of plain data, and of an actor's options."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import enum
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.options import Answer, Fault, Inquiry, answer, check, nearest, show

THIS = __name__


class Kind(enum.StrEnum):
    ONE = "one"
    TWO = "two"


class Inner(msgspec.Struct):
    size: Annotated[int, msgspec.Meta(ge=1)] = 1
    kind: Kind = Kind.ONE


class Fast(msgspec.Struct, tag_field="kind", tag="fast"):
    speed: int


class Slow(msgspec.Struct, tag_field="kind", tag="slow"):
    inner: Inner


class Picky(msgspec.Struct):
    even: int = 0

    def __post_init__(self) -> None:
        if self.even % 2:
            raise ValueError("Expected an even number")


class Outer(msgspec.Struct):
    inner: Inner
    engine: Fast | Slow | None = None
    many: list[Inner] = []
    pairs: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = {}
    by_number: dict[int, float] = {}
    mode: Literal["a", "b"] | None = None
    picky: Picky = msgspec.field(default_factory=Picky)
    renamed: int = msgspec.field(default=0, name="else")
    words: list[str] = []


class Plain:
    """Takes no options."""


class Wrong:
    Options = dict


class Right:
    Options = Outer


def faults(value: object, kind: Any = Outer) -> list[str]:
    converted, found = check(value, kind)
    assert (converted is None) == bool(found)
    return [f"{f.path} {f.at}: {f.message} ({f.suggestion})" for f in found]


def test_good_data_is_converted() -> None:
    data = {
        "inner": {"size": 2}, "engine": {"kind": "slow", "inner": {}}, "many": [{}], "pairs": [{}],
        "by_name": {"x": {"kind": "two"}}, "by_number": {"1": 2.0}, "mode": "a", "else": 3,
    }  # fmt: skip
    value, found = check(data, Outer)
    assert found == []
    assert value == Outer(
        inner=Inner(size=2), engine=Slow(inner=Inner()), many=[Inner()], pairs=(Inner(),),
        by_name={"x": Inner(kind=Kind.TWO)}, by_number={1: 2.0}, mode="a", renamed=3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, "() value: missing key 'inner' (None)"),
        ([], "() value: expected a mapping; found a list (None)"),
        ({"inner": {}, "renamed": 1}, "('renamed',) key: unknown key 'renamed'; expected one of inner, engine, many, pairs, by_name, by_number, mode, picky, else, words (None)"),
        ({"inner": {"sise": 1}}, "('inner', 'sise') key: unknown key 'sise'; expected one of size, kind (size)"),
        ({"inner": {"size": 0}}, "('inner', 'size') value: expected an integer >= 1; found 0 (None)"),
        ({"inner": {"size": "1"}}, "('inner', 'size') value: expected an integer; found '1' (None)"),
        ({"inner": {"kind": "on"}}, "('inner', 'kind') value: expected one of one, two; found 'on' (one)"),
        ({"inner": {}, "mode": "c"}, "('mode',) value: expected one of a, b, null; found 'c' (None)"),
        ({"inner": {}, "many": [{}, {"size": 0}]}, "('many', 1, 'size') value: expected an integer >= 1; found 0 (None)"),
        ({"inner": {}, "pairs": [{"x": 0}]}, "('pairs', 0, 'x') key: unknown key 'x'; expected one of size, kind (None)"),
        ({"inner": {}, "by_name": {"a": {"x": 0}}}, "('by_name', 'a', 'x') key: unknown key 'x'; expected one of size, kind (None)"),
        ({"inner": {}, "by_number": {"a": 0}}, "('by_number', 'a') key: expected an integer; found 'a' (None)"),
        ({"inner": {}, "engine": {"speed": 1}}, "('engine',) value: missing key 'kind', one of fast, slow (None)"),
        ({"inner": {}, "engine": {"kind": "fsat"}}, "('engine', 'kind') value: expected one of fast, slow; found 'fsat' (fast)"),
        ({"inner": {}, "engine": {"kind": ["fast"]}}, "('engine', 'kind') value: expected one of fast, slow; found a list (None)"),
        ({"inner": {}, "engine": {"kind": "fast", "speed": 1, "x": 1}}, "('engine', 'x') key: unknown key 'x'; expected one of speed (None)"),
        ({"inner": {}, "engine": {"kind": "slow", "inner": {"x": 1}}}, "('engine', 'inner', 'x') key: unknown key 'x'; expected one of size, kind (None)"),
        ({"inner": {}, "picky": {"even": 1}}, "('picky',) value: expected an even number (None)"),
        ({"inner": {}, "words": ["a", 1]}, "('words', 1) value: expected a string; found 1 (None)"),
    ],
)  # fmt: skip
def test_a_mistake_has_its_path_and_what_was_expected(data: object, expected: str) -> None:
    assert faults(data) == [expected]


def test_all_mistakes_are_found_at_once() -> None:
    assert len(faults({"many": [{"size": 0}, {"kind": 1}], "x": 1, "mode": 3})) == 5


def test_a_form_translates_what_was_written() -> None:
    def double(value: object) -> object:
        if not isinstance(value, str):
            raise ValueError("a word")  # noqa: TRY004 - what a form raises
        return value * 2

    kind = Annotated[str, msgspec.Meta(max_length=4, extra={"form": "double"})]
    forms = {"double": double}
    assert check("ab", kind, forms=forms) == ("abab", [])
    assert check(3, kind, forms=forms)[1] == [Fault((), "expected a word; found 3")]
    assert check(None, kind | None, forms=forms) == (None, [])
    assert "expected a string of length <= 4" in check("abc", kind, forms=forms)[1][0].message


_DATA = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["fast", "a", ""])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["inner", "engine", "kind", "size", "many"]), inner),
    ),
    max_leaves=8,
)


@given(_DATA)
def test_the_check_is_at_least_as_strict_as_conversion(data: object) -> None:
    converted, found = check(data, Outer)
    if not found:
        assert converted == msgspec.convert(data, Outer, str_keys=True)


def test_the_nearest_word_is_close_or_none() -> None:
    assert nearest("permanant", ["permanent", "transient"]) == "permanent"
    assert nearest("xyz", ["permanent"]) is None


def test_long_values_are_cut_in_messages() -> None:
    assert len(show("x" * 1000)) == 60


def answered(actor: str, **options: Any) -> list[str]:
    inquiry = Inquiry(("children", 0), actor, options)
    return [f"{fault.path}: {fault.message}" for fault in answer(inquiry, "check").faults]


def test_the_options_of_a_class_are_checked_below_the_actor() -> None:
    assert answered(f"{THIS}:Right", inner={}) == []
    assert answered(f"{THIS}:Right", inner={"size": 0}) == [
        "('children', 0, 'options', 'inner', 'size'): expected an integer >= 1; found 0"
    ]


def test_a_class_without_options_takes_none() -> None:
    assert answered(f"{THIS}:Plain") == []
    (line,) = answered(f"{THIS}:Plain", x=1)
    assert line.endswith("unknown key 'x'; expected no keys")


@pytest.mark.parametrize(
    ("actor", "message"),
    [
        ("no_such_module:X", "cannot import 'no_such_module': ModuleNotFoundError: No module named 'no_such_module'"),
        (f"{THIS}:Missing", f"expected a class in '{THIS}'; found no class 'Missing'"),
        (f"{THIS}:THIS", f"expected a class in '{THIS}'; found no class 'THIS'"),
        (f"{THIS}:Wrong", f"{THIS}:Wrong.Options must be a msgspec.Struct; found <class 'dict'>"),
    ],
)  # fmt: skip
def test_a_class_that_cannot_be_asked_is_told(actor: str, message: str) -> None:
    assert answered(actor) == [f"('children', 0, 'actor'): {message}"]


def test_the_schema_of_a_class_has_names_of_its_own() -> None:
    found = answer(Inquiry((), f"{THIS}:Right"), "schema")
    assert found.schema == {"$ref": f"#/$defs/{THIS}:Right.Outer"}
    assert f"{THIS}:Right.Inner" in found.definitions


@pytest.mark.process
def test_the_process_answers_on_stdout_whatever_a_module_prints(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(
        "import os\nos.write(1, b'noise')\nprint('noise')\nclass A: pass"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-m", "actors.runtime.options", "check", str(tmp_path)],
        input=msgspec.json.encode([Inquiry((), "loud:A"), Inquiry((), "loud:B")]),
        capture_output=True,
        check=True,
    )
    answers = msgspec.json.decode(done.stdout, type=list[Answer])
    assert [len(answer.faults) for answer in answers] == [0, 1]
