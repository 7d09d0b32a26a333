"""The JSON Schema says what the reader accepts."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from actors.runtime.options import Answer, Fault, Inquiry, answer
from supervisor.topology import schema
from supervisor.topology.roles import BUILT_IN
from supervisor.topology.schema import file_schema
from tests.supervisor.topology.files import FULL, mistakes


class Engine(msgspec.Struct):
    kind: str
    model: str


class Worker:
    class Options(msgspec.Struct):
        engine: Engine


WORKER = f"{__name__}:Worker"


def example() -> dict[str, Any]:
    """The file's schema where two roles are known and the others could not be imported."""
    known = answer(Inquiry((), WORKER), "schema")
    missing = Answer(faults=[Fault((), "cannot import it")])
    return file_schema({r: known if r in {"context", "generation"} else missing for r in BUILT_IN})


_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}


def accepts(root: dict[str, Any], part: dict[str, Any], value: object) -> bool:  # noqa: C901, PLR0912
    """Whether a value is valid: the keywords that the schema uses, and an error for any other."""
    results = []
    for keyword, rule in part.items():
        match keyword:
            case "$ref":
                results.append(accepts(root, root["$defs"][rule.removeprefix("#/$defs/")], value))
            case "anyOf":
                results.append(any(accepts(root, one, value) for one in rule))
            case "oneOf":
                results.append(sum(accepts(root, one, value) for one in rule) == 1)
            case "allOf":
                results.append(all(accepts(root, one, value) for one in rule))
            case "if":
                holds = accepts(root, rule, value)
                results.append(not holds or accepts(root, part["then"], value))
            case "enum":
                results.append(value in rule)
            case "const":
                results.append(value == rule)
            case "type" if rule in ("integer", "number"):
                numbers = int if rule == "integer" else (int, float)
                results.append(isinstance(value, numbers) and not isinstance(value, bool))
            case "type":
                results.append(isinstance(value, _TYPES[rule]))
            case "pattern":
                results.append(not isinstance(value, str) or re.search(rule, value) is not None)
            case "minimum":
                results.append(not isinstance(value, (int, float)) or value >= rule)
            case "exclusiveMinimum":
                results.append(not isinstance(value, (int, float)) or value > rule)
            case "maximum":
                results.append(not isinstance(value, (int, float)) or value <= rule)
            case "minItems":
                results.append(not isinstance(value, list) or len(value) >= rule)
            case "items" if isinstance(value, list):
                results.append(all(accepts(root, rule, item) for item in value))
            case "required" if isinstance(value, dict):
                results.append(all(key in value for key in rule))
            case "propertyNames" if isinstance(value, dict):
                results.append(all(accepts(root, rule, key) for key in value))
            case "properties" if isinstance(value, dict):
                results += [accepts(root, rule[k], v) for k, v in value.items() if k in rule]
            case "additionalProperties" if isinstance(value, dict):
                patterns = part.get("patternProperties", {})
                others = [
                    item
                    for key, item in value.items()
                    if key not in part.get("properties", {})
                    and not any(re.search(pattern, key) for pattern in patterns)
                ]
                results += [bool(rule) and accepts(root, rule, item) for item in others]
            case "then" | "default" | "title" | "description" | "$defs" | "$schema" | "$comment":
                pass
            case "items" | "required" | "properties" | "additionalProperties" | "propertyNames":
                pass
            case "patternProperties":
                assert list(rule.values()) == [{}]
            case _:
                raise AssertionError(f"a keyword this test does not know: {keyword}")
    return all(results)


def valid(text: str) -> bool:
    whole = example()
    return accepts(whole, whole, yaml.safe_load(text))


ENGINE = "options: {engine: {kind: k, model: m}}"


@pytest.mark.parametrize(
    "text",
    [
        FULL,
        "children: [{actor: router}]",
        "nats: [a]\netcd: {urls: [a], user: u, password: p}\nchildren: [{actor: router}]",
        "children: [{actor: router, options: }]",
        'children: [{actor: router, watchdog: "off"}]',
        "orphan_timeout: 5m\nchildren: [{actor: router, watchdog: {heartbeat: 3s, progress: 1m}}]",
        "children: [{actor: router, shutdown: infinity, drain: 300ms, options: {any: 1}}]",
        'children: [{actor: router, replicas: "${N:-2}", drain: "${D:-1s}"}]',
        'children: [{actor: router, restart: "${R:-permanent}"}]',
        f"children: [{{actor: context, {ENGINE}}}]",
        "x-mine: 1\nchildren: [{name: a, actor: 'm:C', max_failures: 3, env: {A: 1, B: x}}]",
    ],
)
def test_what_the_reader_accepts_the_schema_accepts(text: str) -> None:
    assert mistakes(text) == []
    assert valid(text)


@pytest.mark.parametrize(
    "text",
    [
        "namespace: a",
        "children: []",
        "children: [{actor: contxt}]",
        "children: [{actor: router, restart: never}]",
        "children: [{actor: router, watchdog: on}]",
        "children: [{actor: router, watchdog: {heartbeet: 3s}}]",
        "orphan_timeout: never\nchildren: [{actor: router}]",
        "children: [{actor: router, drain: 5 s}]",
        "children: [{actor: router, shutdown: never}]",
        "children: [{actor: router, replica: 1}]",
        "children: [{actor: router, name: Router}]",
        "children: [{actor: router, env: {A B: 1}}]",
        "children: [{name: s, replicas: 2, children: [{actor: router}]}]",
        "children: [{name: s, children: [{actor: contxt}]}]",
        "children: [{name: s, actors: [{actor: contxt}]}]",
        "nats: {ports: 1}\nchildren: [{actor: router}]",
        "supervision: {period: 0}\nchildren: [{actor: router}]",
    ],
)
def test_what_the_reader_refuses_for_its_form_the_schema_refuses(text: str) -> None:
    assert mistakes(text) != []
    assert not valid(text)


def test_the_options_of_a_role_are_typed() -> None:
    assert not valid("children: [{actor: context, options: {engine: {kind: k, model: 5}}}]")
    assert not valid("children: [{name: n, actors: [{actor: context, options: {engin: 1}}]}]")


def test_a_role_that_cannot_be_imported_says_why() -> None:
    assert '"$comment": "cannot import it"' in json.dumps(example())


def test_every_reference_leads_somewhere() -> None:
    whole = example()
    references = set(re.findall(r'"#/\$defs/([^"]*)"', json.dumps(whole)))
    assert references <= set(whole["$defs"])
    assert f"{WORKER}.Engine" in references


@pytest.mark.process
def test_the_schema_knows_the_built_in_roles(tmp_path: Path) -> None:
    whole = asyncio.run(schema(tmp_path))
    rules = whole["$defs"]["SingleForm"]["allOf"]
    assert [rule["if"]["properties"]["actor"]["const"] for rule in rules] == list(BUILT_IN)
