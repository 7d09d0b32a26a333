"""The JSON Schema of a topology file, for editors and for those who like to read one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from actors.runtime.options import Answer, Inquiry
from supervisor.topology.amounts import BYTES_PATTERN, CPUS_PATTERN, MAX_CPU
from supervisor.topology.durations import DURATION_PATTERN
from supervisor.topology.forms import ENTRY_FORMS, RootForm
from supervisor.topology.options_check import DEADLINE_S, inquire
from supervisor.topology.roles import BUILT_IN, CLASS_PATH_PATTERN

Schema = dict[str, Any]

_REFERENCE = "#/$defs/"
_DURATION: Schema = {
    "description": 'A duration: "300ms", "5s", "2m", "1h", or a number of seconds.',
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": DURATION_PATTERN},
    ],
}
_SHUTDOWN: Schema = {
    "anyOf": [{"$ref": f"{_REFERENCE}Duration"}, {"enum": ["infinity", "brutal_kill"]}]
}
_BYTES: Schema = {
    "description": 'An amount of memory: "512MiB", "8GiB", or a number of bytes.',
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": BYTES_PATTERN},
    ],
}
_CPU: Schema = {"type": "integer", "minimum": 0, "maximum": MAX_CPU}
_CPUS: Schema = {
    "description": 'Processors: "0-3,8", a list of numbers, or one.',
    "anyOf": [
        _CPU,
        {"type": "string", "pattern": CPUS_PATTERN},
        {"type": "array", "items": _CPU, "minItems": 1},
    ],
}
_SUBSTITUTION: Schema = {
    "description": "Replaced from the environment before anything is checked.",
    "type": "string",
    "pattern": r"\$\{",
}
_NAMED_FORMATS = MappingProxyType(
    {"duration": "Duration", "shutdown": "Shutdown", "bytes": "Bytes", "cpus": "Cpus"}
)
"""What the types in `model` are marked with, and the definition here that each stands for."""
_ACTOR: Schema = {"anyOf": [{"enum": list(BUILT_IN)}, {"pattern": f"^{CLASS_PATH_PATTERN}$"}]}
_NUMBERS = frozenset({"integer", "number", "boolean"})


async def schema(base_dir: Path, *, deadline_s: float = DEADLINE_S) -> Schema:
    """The schema of the whole file, with the options of the built-in roles.

    A role that cannot be imported here (an engine that is not installed) has options of any kind;
    its `options` say why in `$comment`. Raises OptionsProcessError.
    """
    inquiries = [Inquiry((role,), class_path) for role, class_path in BUILT_IN.items()]
    answers = await inquire(inquiries, "schema", base_dir, deadline_s=deadline_s)
    return file_schema(dict(zip(BUILT_IN, answers, strict=True)))


def file_schema(roles: Mapping[str, Answer]) -> Schema:
    """The schema of the whole file; `roles` has what is known of each built-in role's options."""
    forms = [RootForm, *ENTRY_FORMS.values()]
    (root, *entries), definitions = msgspec.json.schema_components(
        forms, ref_template=f"{_REFERENCE}{{name}}"
    )
    for answer in roles.values():
        definitions |= answer.definitions
    definitions = {name: _as_written(definition) for name, definition in definitions.items()}
    for name in ("RootForm", "SupervisorForm"):
        children = definitions[name]["properties"]["children"]
        children["items"] = {"$ref": f"{_REFERENCE}Entry"}
    for name in ("SingleForm", "ActorForm"):
        definitions[name]["properties"]["actor"] = _ACTOR
        definitions[name]["allOf"] = [_options_of(role, roles[role]) for role in roles]
    definitions["RootForm"]["patternProperties"] = {"^x-": {}}
    definitions |= {
        "Entry": {"oneOf": entries},
        "Duration": _DURATION,
        "Shutdown": _SHUTDOWN,
        "Bytes": _BYTES,
        "Cpus": _CPUS,
        "Substitution": _SUBSTITUTION,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Understudy topology",
        **root,
        "$defs": dict(sorted(definitions.items())),
    }


def _options_of(role: str, answer: Answer) -> Schema:
    """The rule that types `options` where `actor` is this role."""
    if answer.schema is None:
        options: Schema = {"$comment": "; ".join(fault.message for fault in answer.faults)}
    else:
        options = {"anyOf": [answer.schema, {"type": "null"}]}
    return {
        "if": {"properties": {"actor": {"const": role}}},
        "then": {"properties": {"options": options}},
    }


def _as_written(schema: Any) -> Any:
    """A schema of decoded data, changed to that of the text: units, `${VAR}`, no unknown keys."""
    if isinstance(schema, list):
        return [_as_written(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("format") in _NAMED_FORMATS:
        named: Schema = {"$ref": _REFERENCE + _NAMED_FORMATS[schema["format"]]}
        named |= {key: schema[key] for key in ("default", "exclusiveMinimum") if key in schema}
        return _or_substitution(named)
    # What stands under these two is data, not schema, and may look like one.
    written = {
        key: value if key in {"default", "enum"} else _as_written(value)
        for key, value in schema.items()
    }
    if "properties" in schema:
        written["properties"] = {k: _as_written(v) for k, v in schema["properties"].items()}
        written.setdefault("additionalProperties", False)
    if schema.get("type") in _NUMBERS or "enum" in schema or "pattern" in schema:
        return _or_substitution(written)
    return written


def _or_substitution(schema: Schema) -> Schema:
    outer = {"default": schema.pop("default")} if "default" in schema else {}
    return {"anyOf": [schema, {"$ref": f"{_REFERENCE}Substitution"}], **outer}
