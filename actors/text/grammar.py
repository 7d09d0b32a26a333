"""What an answer may look like, as a grammar of llguidance: for roles that check one and for
engines that follow it.

Importing this does not import llguidance; the first grammar does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llguidance._lib import JsonCompileOptions

GrammarKind = Literal["json_schema", "regex", "choice", "grammar"]

MAX_SPACES = 20
"""White space in a row between the parts of a JSON document. Without a bound a model that has
nothing to say may write spaces until its context is full."""

_SPACES = rf"[\x20\x0A\x0D\x09]{{1,{MAX_SPACES}}}"
_SPECIAL = frozenset("\\.+*?()|[]{}^$#&-~/")


class GrammarError(ValueError):
    """No grammar, or one that cannot be followed; the text says why."""


def grammar_source(kind: GrammarKind, text: str) -> str:
    """The grammar in llguidance's own form.

    json_schema   a JSON schema; white space between the parts is free, up to `MAX_SPACES`,
                  unless the schema's own `x-guidance` says otherwise
    regex         in the syntax of Rust's regex crate; the whole answer matches
    choice        a JSON array of strings; the answer is one of them
    grammar       Lark as llguidance reads it, or GBNF

    Raises GrammarError when the form itself is wrong. What the result means is seen when it is
    compiled, or by `check_grammar`.
    """
    from llguidance import LLMatcher  # noqa: PLC0415 - see the module

    try:
        match kind:
            case "json_schema":
                schema = json.loads(text)
                own = isinstance(schema, dict) and "x-guidance" in schema
                spaces: JsonCompileOptions = {} if own else {"whitespace_pattern": _SPACES}
                return LLMatcher.grammar_from_json_schema(text, overrides=spaces)
            case "regex":
                return LLMatcher.grammar_from_regex(text)
            case "choice":
                return LLMatcher.grammar_from_regex(_one_of(json.loads(text)))
            case "grammar":
                from llguidance.gbnf_to_lark import any_to_lark  # noqa: PLC0415 - same

                return LLMatcher.grammar_from_lark(any_to_lark(text))
    except (ValueError, RecursionError) as error:
        raise GrammarError(str(error)) from error


def check_grammar(kind: GrammarKind, text: str) -> None:
    """Raises GrammarError, with the compiler's complaint, unless the grammar can be followed.
    Takes a millisecond for most, up to seconds for the worst that its limits admit."""
    from llguidance import LLMatcher  # noqa: PLC0415 - see the module

    complaint = LLMatcher.validate_grammar(grammar_source(kind, text))
    if complaint:
        raise GrammarError(complaint.strip())


def _one_of(choices: list[str]) -> str:
    return "|".join(
        "".join(f"\\{character}" if character in _SPECIAL else character for character in choice)
        for choice in choices
    )
