"""Calls and reasoning as models write them: what is found, in whatever pieces it comes."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from actors.text.answers.parser import AnswerParser, answer_parser
from actors.text.answers.parts import CallArguments, CallBegin, Content, Part, Reasoning

KNOWN = ("weather", "time")
FAMILIES: list[Any] = ["hermes", "llama3_json", "mistral", "deepseek", "pythonic", "listed"]
REASONING: list[Any] = ["deepseek_r1", "qwen3", "mistral", "granite"]
Call = tuple[str, str]


def parser_of(**fields: Any) -> AnswerParser:
    parser = answer_parser(known=KNOWN, **fields)
    assert parser is not None
    return parser


def read(parser: AnswerParser, pieces: Iterable[str]) -> list[Part]:
    parts = [part for piece in pieces for part in parser.push(piece)]
    return parts + parser.flush()


def joined(parts: Iterable[Part]) -> tuple[str, str, list[Call]]:
    """Content, reasoning, and the calls, put together; checks the order of a call's parts."""
    content = reasoning = ""
    calls: list[Call] = []
    for part in parts:
        match part:
            case Content(text):
                content += text
            case Reasoning(text):
                reasoning += text
            case CallBegin(number, name):
                assert number == len(calls)
                calls.append((name, ""))
            case CallArguments(number, text):
                assert number == len(calls) - 1
                assert text
                calls[-1] = (calls[-1][0], calls[-1][1] + text)
    return content, reasoning, calls


def found(family: Any, text: str) -> tuple[str, list[Call]]:
    content, _, calls = joined(read(parser_of(tools=family), text))
    return content, calls


HERMES = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
V3 = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n"  # noqa: RUF001
    '```json\n{"city": "Oslo"}\n```<｜tool▁call▁end｜>\n'  # noqa: RUF001
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>time\n"  # noqa: RUF001
    "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"  # noqa: RUF001
)
V31 = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>"  # noqa: RUF001
    '{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{}'  # noqa: RUF001
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"  # noqa: RUF001
)
OSLO = ("weather", '{"city": "Oslo"}')
BOTH = [OSLO, ("time", "{}")]
CASES: list[tuple[Any, str, str, list[Call]]] = [
    ("hermes", HERMES, "", [OSLO]),
    ("hermes", f"Let me see.\n{HERMES}\n", "Let me see.", [OSLO]),
    ("hermes", HERMES + "\n" + HERMES, "", [OSLO, OSLO]),
    ("hermes", HERMES + "\nThere.", "There.", [OSLO]),
    ("hermes", "a < b, <tool_", "a < b, <tool_", []),
    ("hermes", "<tool_call>no JSON</tool_call>", "<tool_call>no JSON</tool_call>", []),
    ("hermes", '<tool_call>{"name": "weather", "arguments": {"ci', "", [("weather", '{"ci')]),
    ("hermes", '<tool_call>{"name": "x"}</tool_call>', "", [("x", "{}")]),
    ("llama3_json", '{"name": "weather", "parameters": {"city": "Oslo"}}', "", [OSLO]),
    (
        "llama3_json",
        '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "time"}',
        "",
        BOTH,
    ),
    (
        "llama3_json",
        '{"type": "function", "parameters": {"city": "Oslo"}, "name": "weather"}',
        "",
        [OSLO],
    ),
    ("llama3_json", '{"name": "Bob", "age": 3}', '{"name": "Bob", "age": 3}', []),
    ("llama3_json", 'So: {"name": "time"}', 'So: {"name": "time"}', []),
    ("llama3_json", "  {not JSON", "{not JSON", []),
    (
        "mistral",
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time"}]',
        "",
        BOTH,
    ),
    ("mistral", '[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]time{}', "", BOTH),
    ("mistral", '[TOOL_CALLS]weather[CALL_ID]ab1[ARGS]{"city": "Oslo"}', "", [OSLO]),
    ("mistral", "Well [TOOL", "Well [TOOL", []),
    ("deepseek", V3, "", BOTH),
    ("deepseek", f"I will look.\n{V31}", "I will look.", BOTH),
    ("deepseek", "just text", "just text", []),
    ("pythonic", '[weather(city="Oslo")]', "", [OSLO]),
    ("pythonic", '<|python_start|>[weather(city="Oslo"), time()]<|python_end|>', "", BOTH),
    ("pythonic", "[weather(city='O\\'[(', n=-1)]", "", [("weather", '{"city": "O\'[(", "n": -1}')]),
    ("pythonic", "[1, 2]", "[1, 2]", []),
    ("pythonic", "[evil(a=1)]", "[evil(a=1)]", []),
    ("pythonic", "[weather(city=open('x'))]", "[weather(city=open('x'))]", []),
    ("pythonic", "Hello [weather()]", "Hello [weather()]", []),
    ("listed", '[{"name": "weather", "parameters": {"city": "Oslo"}},{"name":"time"}]', "", BOTH),
]


@pytest.mark.parametrize(("family", "text", "content", "calls"), CASES)
def test_what_a_family_writes_is_found(
    family: Any, text: str, content: str, calls: list[Call]
) -> None:
    assert found(family, text) == (content, calls)


@pytest.mark.parametrize(
    ("raw", "arguments"),
    [
        ('{"a": "}\\"]"}', '{"a": "}\\"]"}'),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ("null", "{}"),
        ("[1, {}]", "[1, {}]"),
    ],
)
def test_arguments_are_the_json_that_the_model_wrote(raw: str, arguments: str) -> None:
    for text in (f'{{"name": "time", "arguments": {raw}}}', f'{{"arguments":{raw},"name":"time"}}'):
        assert found("hermes", f"<tool_call>{text}</tool_call>") == ("", [("time", arguments)])


def test_arguments_go_out_while_they_are_written() -> None:
    parser = parser_of(tools="hermes")
    assert parser.push('<tool_call>{"name": "weather", "arguments": {"ci') == [
        CallBegin(0, "weather"),
        CallArguments(0, '{"ci'),
    ]
    assert parser.push('ty": ') == [CallArguments(0, 'ty": ')]


def test_calls_beyond_the_number_allowed_are_dropped() -> None:
    parser = parser_of(tools="hermes", max_calls=1)
    assert joined(read(parser, HERMES + HERMES)) == ("", "", [OSLO])


def test_all_of_a_named_answer_is_the_arguments() -> None:
    parser = parser_of(named="time")
    assert joined(read(parser, '{"zone": 1}')) == ("", "", [("time", '{"zone": 1}')])
    assert joined(read(parser_of(named="time"), "")) == ("", "", [("time", "")])


@pytest.mark.parametrize(
    ("family", "text", "reasoning", "content"),
    [
        ("qwen3", "<think>\nHm. So.\n</think>\n\nYes.", "Hm. So.", "Yes."),
        ("qwen3", "\n<think></think>Yes.", "", "Yes."),
        ("qwen3", "No <think>thought</think>", "", "No <think>thought</think>"),
        ("qwen3", "<think>cut o", "cut o", ""),
        ("qwen3", "<thi", "", "<thi"),
        ("deepseek_r1", "Hm.\n\nSo.</think>Yes.", "Hm.\n\nSo.", "Yes."),
        ("deepseek_r1", "<think>\nHm.</think>\nYes.", "Hm.", "Yes."),
        ("deepseek_r1", "Hm", "Hm", ""),
        ("mistral", "[THINK]Hm.[/THINK]Yes.", "Hm.", "Yes."),
        (
            "granite",
            "Here is my thought process: Hm.\nHere is my response: Yes.",
            "Hm.",
            "Yes.",
        ),
    ],
)
def test_thought_is_told_from_speech(family: Any, text: str, reasoning: str, content: str) -> None:
    assert joined(read(parser_of(reasoning=family), text)) == (content, reasoning, [])


def test_calls_stand_behind_the_reasoning() -> None:
    parser = parser_of(reasoning="qwen3", tools="hermes")
    text = f"<think>\n{HERMES}?\n</think>\n\n{HERMES}"
    assert joined(read(parser, text)) == ("", f"{HERMES}?", [OSLO])


SHARDS = [
    "<tool_call>",
    "</tool_call>",
    "<|python_tag|>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "<think>",
    "</think>",
    '{"name": "weather", "arguments": {"a": "\\"}"}}',
    '{"arguments": {"a": [1]}, "name": "time"}',
    "[weather(a=1)]",
    "[weather(a=1), time(b='x')]",
    "weather",
    "{}",
    V31[:30],
    "<｜tool▁sep｜>",  # noqa: RUF001
    "<｜tool▁call▁end｜>",  # noqa: RUF001
    "; ",
    "\n",
    " x ",
    "[",
    "]",
    ",",
    '"',
    "\\",
]
answers = st.one_of(
    st.sampled_from([text for _, text, _, _ in CASES]),
    st.lists(st.sampled_from(SHARDS), max_size=8).map("".join),
)


@given(
    text=answers,
    cuts=st.lists(st.integers(0, 200), max_size=12),
    tools=st.sampled_from([None, *FAMILIES]),
    reasoning=st.sampled_from([None, *REASONING]),
)
@example(text=HERMES + " x", cuts=[len(HERMES) + 1], tools="hermes", reasoning=None)
def test_the_pieces_a_text_comes_in_change_nothing(
    text: str, cuts: list[int], tools: Any, reasoning: Any
) -> None:
    def parse(pieces: Iterable[str]) -> Any:
        parser = answer_parser(reasoning=reasoning, tools=tools, known=KNOWN)
        return None if parser is None else joined(read(parser, pieces))

    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[a:b] for a, b in pairwise(places)]
    assert parse(pieces) == parse([text]) == parse(text)


@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(KNOWN),
            st.dictionaries(st.text(max_size=5), st.none() | st.text(max_size=8) | st.integers()),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_every_call_that_json_can_hold_comes_back(calls: list[tuple[str, dict[str, Any]]]) -> None:
    objects = [json.dumps({"name": name, "arguments": given}) for name, given in calls]
    expected = [(name, json.dumps(given)) for name, given in calls]
    tagged = "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects)
    assert found("hermes", tagged) == ("", expected)
    assert found("llama3_json", ";".join(objects)) == ("", expected)
    assert found("mistral", f"[TOOL_CALLS][{', '.join(objects)}]") == ("", expected)
    assert found("listed", f"[{','.join(objects)}]") == ("", expected)


UNREADABLE = [
    ("hermes", '<tool_call>{"name": ' + "[" * 5000 + "]" * 5000 + "}</tool_call>"),
    ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "time", "arguments": "\\ud800"}</tool_call>'),
    ("hermes", '<tool_call>{"name": "time", "arguments": "\\x"}</tool_call>'),
    ("listed", '[{"name": "\\udfff", "parameters": {}}]'),
    ("llama3_json", '{"name": "time", "parameters": "\\ud800"}'),
    ("pythonic", '[time(zone="\\ud800")]'),
    ("mistral", "[TOOL_CALLS]" + "no brace " * 1000),
    ("deepseek", "<｜tool▁call▁begin｜>" + "no brace " * 1000),  # noqa: RUF001
]


@pytest.mark.parametrize(("family", "text"), UNREADABLE)
def test_whatever_a_model_writes_can_be_sent(family: Any, text: str) -> None:
    """Whoever asks can have a model write anything, and the parts leave as JSON in UTF-8."""
    for size in (1, 7, len(text)):
        pieces = [text[at : at + size] for at in range(0, len(text), size)]
        parts = read(parser_of(tools=family), pieces)
        assert msgspec.json.encode(parts)
        assert not any(isinstance(part, CallArguments) and part.text == "None" for part in parts)


@pytest.mark.parametrize("family", ["mistral", "deepseek"])
def test_what_never_comes_to_arguments_is_text(family: Any) -> None:
    mark, text = next((text[:12], text) for name, text in UNREADABLE if name == family)
    content, _, calls = joined(read(parser_of(tools=family), [text, "more"]))
    assert content.startswith(mark)
    assert content.endswith("more")
    assert calls == []


def test_a_long_answer_that_is_no_call_is_read_in_linear_time() -> None:
    """It took minutes for a megabyte when each character copied all before it."""
    parser = parser_of(tools="llama3_json")
    piece = "abcdefgh" * 128
    parts = read(parser, ['{"answer": "', *[piece] * 256, '"}'])

    assert joined(parts)[0] == '{"answer": "' + piece * 256 + '"}'
