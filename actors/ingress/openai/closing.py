"""Schemas as clients mean them: what an object does not name, it does not have. Pure.

JSON Schema lets an object have further properties unless `additionalProperties` says otherwise.
OpenAI's strict mode insists on `false`; without it the model is shown the schema and rarely makes
up more. An engine that is guided by the schema as it stands may: so an object that lists its
properties, and says nothing of others, is closed. What a schema says itself is left as it is, and
all of a schema is whose parts apply to one object together: closed, each would forbid what the
others name.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

Schema = dict[str, Any]

MAX_DEPTH = 64
"""Schemas that go deeper are left as they are."""
_NAMED = ("properties", "$defs", "definitions", "patternProperties")
_LISTED = ("anyOf", "oneOf", "allOf", "prefixItems", "items")
_SINGLE = ("items", "additionalProperties", "contains")
_TOGETHER = frozenset(
    {
        *("not", "if", "then", "else", "dependentSchemas", "dependencies", "$dynamicRef"),
        *("unevaluatedProperties", "unevaluatedItems"),
    }
)
"""A schema with one of these is too clever to be closed from outside."""
_CHOICES = ("anyOf", "oneOf", "allOf", "$ref")
_SAID = ("additionalProperties", "patternProperties", "propertyNames", "minProperties")


def closed(schema: Schema) -> Schema:
    """The same schema, its objects closed where that is meant; `schema` itself is not changed."""
    if _is_closable(schema, 0):
        return _close(schema)
    return schema


def _is_closable(schema: Schema, depth: int) -> bool:
    if depth > MAX_DEPTH or not _TOGETHER.isdisjoint(schema):
        return False
    choices = [name for name in _CHOICES if name in schema]
    if choices and ("properties" in schema or len(choices) > 1):
        return False
    # One alone is how a reference gets a description beside it.
    if len(schema.get("allOf", ())) > 1:
        return False
    return all(_is_closable(part, depth + 1) for part in _parts(schema))


def _parts(schema: Schema) -> Iterator[Schema]:
    """The schemas directly within a schema; not what only looks like one, as in `enum`."""
    for name in _NAMED:
        named = schema.get(name)
        if isinstance(named, dict):
            yield from (one for one in named.values() if isinstance(one, dict))
    for name in _LISTED:
        listed = schema.get(name)
        if isinstance(listed, list):
            yield from (one for one in listed if isinstance(one, dict))
    for name in _SINGLE:
        single = schema.get(name)
        if isinstance(single, dict):
            yield single


def _close(schema: Schema) -> Schema:
    made = dict(schema)
    for name in _NAMED:
        if isinstance(made.get(name), dict):
            made[name] = {key: _closed_if_one(one) for key, one in made[name].items()}
    for name in _LISTED:
        if isinstance(made.get(name), list):
            made[name] = [_closed_if_one(one) for one in made[name]]
    for name in _SINGLE:
        made |= {name: _close(made[name])} if isinstance(made.get(name), dict) else {}
    properties = made.get("properties")
    if isinstance(properties, dict) and properties and not any(name in made for name in _SAID):
        required = made.get("required")
        if not isinstance(required, list) or all(name in properties for name in required):
            made["additionalProperties"] = False
    return made


def _closed_if_one(value: object) -> object:
    return _close(cast("Schema", value)) if isinstance(value, dict) else value
