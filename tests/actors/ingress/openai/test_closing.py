"""Objects of schemas have what they name, and no more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ingress.openai.closing import closed

CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CLOSED = {**CITY, "additionalProperties": False}
WITHOUT = st.recursive(
    st.sampled_from([{"type": "string"}, CITY, {"enum": [{"properties": {}}]}, {"type": "object"}]),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"properties": st.dictionaries(st.sampled_from("ab"), inner)}),
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries({"anyOf": st.lists(inner, min_size=1, max_size=2)}),
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("schema", "meant"),
    [
        (CITY, CLOSED),
        ({"type": "array", "items": CITY}, {"type": "array", "items": CLOSED}),
        ({"anyOf": [CITY, {"type": "null"}]}, {"anyOf": [CLOSED, {"type": "null"}]}),
        (
            {"$defs": {"c": CITY}, "allOf": [{"$ref": "#/$defs/c"}]},
            {"$defs": {"c": CLOSED}, "allOf": [{"$ref": "#/$defs/c"}]},
        ),
        (
            {"type": "object", "additionalProperties": CITY},
            {"type": "object", "additionalProperties": CLOSED},
        ),
        # A property may be called like a keyword.
        (
            {"properties": {"allOf": CITY}},
            {"properties": {"allOf": CLOSED}, "additionalProperties": False},
        ),
    ],
)
def test_an_object_that_lists_its_properties_has_no_others(schema: Any, meant: Any) -> None:
    assert closed(schema) == meant


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "object", "properties": {}},
        {**CITY, "additionalProperties": True},
        {**CITY, "patternProperties": {"^x": {}}},
        {**CITY, "required": ["city", "country"]},
        {"enum": [CITY]},
        {"const": CITY},
        {"allOf": [CITY, {"properties": {"a": {}}}]},
        {"anyOf": [{"properties": {"a": {}}}, {"required": ["b"]}], "properties": {"b": {}}},
        {"properties": {"a": {"if": {}, "then": CITY}}},
        {"$ref": "#/$defs/c", "properties": {"a": {}}, "$defs": {"c": CITY}},
    ],
)
def test_what_a_schema_says_itself_stays_as_it_is(schema: Any) -> None:
    assert closed(schema) == schema


def test_a_schema_that_goes_very_deep_stays_as_it_is() -> None:
    deep: dict[str, Any] = CITY
    for _ in range(900):
        deep = {"items": deep}

    assert closed(deep) is deep


@given(WITHOUT)
def test_closing_again_changes_nothing_and_never_the_schema_that_was_given(schema: Any) -> None:
    before = repr(schema)
    once = closed(schema)
    assert repr(schema) == before
    assert closed(once) == once
