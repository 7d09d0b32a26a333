"""Structured output as clients ask for it, in OpenAI's form and in the usual extensions.

response_format       {"type": "json_object"}, {"type": "json_schema", "json_schema": {...}}
structured_outputs    {"json" | "regex" | "choice" | "grammar" | "json_object": ...}
guided_json, guided_regex, guided_choice, guided_grammar     the same, by older names
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from actors.ingress.openai.closing import closed
from actors.ingress.openai.errors import bad_field, missing_field, unsupported
from actors.messages.sampling import Grammar

MAX_GRAMMAR_CHARACTERS = 200_000
MAX_CHOICES = 4096
ANY_OBJECT = '{"type":"object"}'

GrammarText = Annotated[str, Meta(min_length=1, max_length=MAX_GRAMMAR_CHARACTERS)]
ChoiceTexts = Annotated[
    list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, max_length=MAX_CHOICES)
]
Schema = dict[str, Any] | bool | str


class JsonSchema(msgspec.Struct, frozen=True):
    name: Annotated[str, Meta(min_length=1, max_length=256)]
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None
    """The schema is followed whatever this says, and see `closing`."""


class ResponseFormat(msgspec.Struct, frozen=True):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(msgspec.Struct, frozen=True):
    json: Schema | None = None
    regex: GrammarText | None = None
    choice: ChoiceTexts | None = None
    grammar: GrammarText | None = None
    json_object: bool | None = None


class StructuredFields(msgspec.Struct, kw_only=True):
    """The fields of a request. At most one of them may ask for something."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: GrammarText | None = None
    guided_choice: ChoiceTexts | None = None
    guided_grammar: GrammarText | None = None

    @property
    def grammar(self) -> Grammar | None:
        """What the answer must look like. Raises ApiError when that is said twice, or in a way
        that cannot be read."""
        found = [
            *_of_format(self.response_format),
            *_of_outputs(self.structured_outputs),
            *_of_parts(
                "guided_",
                json=self.guided_json,
                regex=self.guided_regex,
                choice=self.guided_choice,
                grammar=self.guided_grammar,
            ),
        ]
        if not found:
            return None
        if len(found) > 1:
            raise bad_field(
                found[1].param, f"'{found[1].param}' cannot go with '{found[0].param}'."
            )
        return found[0]


def schema_grammar(schema: object, param: str) -> Grammar:
    """A JSON document that fits a schema."""
    text = schema if isinstance(schema, str) else msgspec.json.encode(schema).decode()
    if len(text) > MAX_GRAMMAR_CHARACTERS:
        raise bad_field(param, f"'{param}' is longer than {MAX_GRAMMAR_CHARACTERS} characters.")
    if isinstance(schema, str):
        _check_json(schema, param)
    return Grammar("json_schema", text, param)


def _check_json(text: str, param: str) -> None:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise bad_field(param, f"Invalid '{param}': not JSON: {error}.") from error


def _of_format(asked: ResponseFormat | None) -> list[Grammar]:
    if asked is None or asked.type == "text":
        return []
    if asked.type == "json_object":
        return [Grammar("json_schema", ANY_OBJECT, "response_format")]
    if asked.json_schema is None:
        raise missing_field("response_format.json_schema")
    schema = asked.json_schema.schema
    return [
        Grammar("json_schema", ANY_OBJECT, "response_format")
        if schema is None
        else schema_grammar(closed(schema), "response_format.json_schema.schema")
    ]


def _of_outputs(asked: StructuredOutputs | None) -> list[Grammar]:
    if asked is None:
        return []
    found = _of_parts(
        "structured_outputs.",
        json=asked.json,
        regex=asked.regex,
        choice=asked.choice,
        grammar=asked.grammar,
    )
    if asked.json_object:
        found.append(Grammar("json_schema", ANY_OBJECT, "structured_outputs.json_object"))
    return found


def _of_parts(
    prefix: str,
    *,
    json: Schema | None,
    regex: str | None,
    choice: list[str] | None,
    grammar: str | None,
) -> list[Grammar]:
    found = []
    if json is not None:
        found.append(schema_grammar(json, f"{prefix}json"))
    if regex is not None:
        found.append(Grammar("regex", regex, f"{prefix}regex"))
    if choice is not None:
        if sum(map(len, choice)) > MAX_GRAMMAR_CHARACTERS:
            raise unsupported(f"{prefix}choice", "The choices are too long together.")
        found.append(Grammar("choice", msgspec.json.encode(choice).decode(), f"{prefix}choice"))
    if grammar is not None:
        found.append(Grammar("grammar", grammar, f"{prefix}grammar"))
    return found
