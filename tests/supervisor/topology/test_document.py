"""YAML as data that knows its places."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.topology import TopologyError
from supervisor.topology.document import MAX_DEPTH, Document, read_yaml, resolve_scalar
from supervisor.topology.places import Path, show_path


def document(text: str, **environ: str) -> Document:
    return read_yaml(text, "f", environ)


def refusal(text: str, **environ: str) -> str:
    with pytest.raises(TopologyError) as caught:
        document(text, **environ)
    return str(caught.value)


def value_place(text: str, path: Path) -> tuple[int, int]:
    place = document(text).places[path].value
    return place.line, place.column


def test_every_key_and_value_has_its_place() -> None:
    places = document("a:\n  bc: [1,\n    x]\n").places
    assert str(places["a", "bc"].key) == "f:2:3"
    assert str(places["a", "bc"].value) == "f:2:7"
    assert str(places["a", "bc", 1].value) == "f:3:5"


def test_what_an_alias_repeats_stands_where_its_anchor_does() -> None:
    text = "x: &a {k: 1}\ny: *a\nz:\n  <<: *a\n  l: 2\n"
    assert document(text).data == {"x": {"k": 1}, "y": {"k": 1}, "z": {"k": 1, "l": 2}}
    assert value_place(text, ("y", "k")) == (1, 11)
    assert value_place(text, ("z", "k")) == (1, 11)
    assert value_place(text, ("z", "l")) == (5, 6)


def test_an_own_key_wins_over_a_merged_one_and_an_earlier_merge_over_a_later() -> None:
    text = "a: &a {k: 1, l: 1}\nb: &b {k: 2, m: 2}\nc: {<<: [*a, *b], l: 3}\n"
    assert document(text).data["c"] == {"k": 1, "l": 3, "m": 2}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("12:30", "12:30"), ("2001-01-01", "2001-01-01"), (".inf", ".inf"),
        ("true", True), ("False", False), ("~", None), ("", None), ("12", 12), ("-3", -3), ("0x1f", 31),
        ("0o17", 15), ("010", 10), ("1e3", 1000.0), (".5", 0.5), ("1.", 1.0), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, value: object) -> None:
    resolved = resolve_scalar(text)
    assert (resolved, type(resolved)) == (value, type(value))
    assert document(f"k: {text}").data == {"k": value}


@given(
    st.one_of(st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False))
)
def test_numbers_are_read_back(number: float) -> None:
    assert resolve_scalar(str(number)) == number


def test_a_scalar_of_one_reference_is_read_again_unless_in_single_quotes() -> None:
    data = document("[\"${A}\", '${A}', 'a${A}', \"\\u0041${A}\"]", A="12").data
    assert data == [12, "12", "a12", "A12"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "f:3:1: a: duplicate key 'a'; found first on line 1"),
        ("a:\n\tb: 1\n", "f:2:1: expected spaces; found a tab, which is no space in YAML"),
        ("a: [1\nb: 2", "f:2:2: expected valid YAML; while parsing a flow sequence expected ',' or ']', but got ':'"),
        ("a: !mine x", "f:1:4: a: expected no tag; found '!mine' on 'x'"),
        ("a: !mine [x]", "f:1:4: a: expected no tag; found '!mine'"),
        ("? [a]\n: 1\n", "f:1:3: expected a key; found none, or one that is no scalar"),
        ("a: &a [*a]", "f:1:4: a[0]: expected a value that ends; found one that contains itself"),
        ("a: &a {<<: *a}", "f:1:4: a: expected a value that ends; found one that contains itself"),
        ("<<: 3", "f:1:5: <<: expected a mapping, or a list of them, to merge; found something else"),
        ("a: 99999999999999999999", "f:1:4: a: expected an integer of 64 bits; found a larger one"),
        ("a: 1e999", "f:1:4: a: expected a number; found one too large"),
        ('a: "\\ud800"', "f:1:4: a: expected text; found a NUL character or half of a surrogate pair"),
        ('"\\0": 1', "f:1:1: expected a key; found one that is not Unicode text"),
        ('a: "\\UFFFFFFFF"', "f:1:7: expected valid YAML; found an escape that is no character"),
        ("a: \x07", "f:1:4: expected text; found the control character '\\x07'"),
        ("a: 1\n---\nb: 2", "f:2:1: expected valid YAML; expected a single document in the stream but found another document"),
        ("a: *b", "f:1:4: expected valid YAML; found undefined alias 'b'"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_place(text: str, message: str) -> None:
    assert refusal(text) == message


def test_all_mistakes_beyond_syntax_are_told_at_once() -> None:
    assert refusal("a: ${A}\nb: ${B}\n").count("found it unset") == 2


def test_depth_is_limited() -> None:
    assert "more than 50 levels" in refusal("[" * (MAX_DEPTH + 1))
    chain = "".join(f"k{i}: &a{i} [{f'*a{i - 1}' if i else '1'}]\n" for i in range(MAX_DEPTH + 1))
    assert "at most 50 levels" in refusal(chain)


def test_a_document_that_explodes_when_expanded_is_refused() -> None:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert "at most 50000 values" in refusal("\n".join(lines))


def test_paths_are_shown_as_people_write_them() -> None:
    assert show_path(("children", 2, "options", "engine")) == "children[2].options.engine"
