"""Exchanges: from tokens to text, and how several choices come to an end together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.ingress.exchange import Choice, Exchange
from actors.ingress.measures import Measures, Stopwatch
from actors.ingress.openai import errors
from actors.ingress.openai.responses import FinishReason
from actors.ingress.session import Arrived, Assigned, Policy, Session
from actors.ingress.sinks import Sink
from actors.messages.frame import Chunk
from actors.messages.sampling import Logprobs, Sampling
from actors.messages.submit import TokenPrompt
from actors.runtime.address import Address
from actors.runtime.metrics import Metrics
from actors.text.answers.parser import AnswerParser
from actors.text.answers.parts import Part
from actors.text.stop_strings import StopAutomaton, StopMatcher
from tests.service import text_of, tokenizer

WORKER = Address("aggregated", 0, 1)


class Kept(Sink):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.texts: dict[int, list[str]] = {}
        self.reasons: dict[int, FinishReason] = {}

    def text(self, index: int, text: str, logprobs: list[Logprobs] | None) -> None:
        assert index not in self.reasons, "text after the end"
        self.texts.setdefault(index, []).append(text)

    def parts(self, index: int, parts: list[Part], logprobs: list[Logprobs] | None) -> None:
        raise AssertionError("plain text is not read")

    def finish(self, index: int, reason: FinishReason) -> None:
        assert index not in self.reasons, "a second end"
        self.reasons[index] = reason

    def whole(self, index: int = 0) -> str:
        return "".join(self.texts.get(index, []))


def exchange(choices: int = 1, *stops: str) -> tuple[Exchange, Kept]:
    sink = Kept()
    made = Exchange("m", "r", sink)
    automaton = StopAutomaton(stops) if stops else None
    for index in range(choices):
        made.add(
            Choice(
                made,
                index,
                index + 1,
                Session(Policy(), 100, 600.0),
                TokenPrompt(b""),
                Sampling(max_tokens=100),
                tokenizer().detokenizer(),
                None if automaton is None else StopMatcher(automaton),
                Stopwatch(Measures(Metrics(), lambda: 0).of("m"), 0.0),
            )
        )
    return made, sink


def tokens_of(text: str) -> list[int]:
    spelled = tokenizer().encode(text, add_special_tokens=False)
    return [int.from_bytes(spelled[at : at + 4], "little") for at in range(0, len(spelled), 4)]


@given(st.lists(st.integers(3, 1023), max_size=30), st.integers(1, 5))
def test_the_text_is_the_same_whatever_the_tokens_were_cut_into(
    tokens: list[int], size: int
) -> None:
    made, sink = exchange()
    [choice] = made.choices

    for at in range(0, len(tokens), size):
        assert not choice.deliver(tokens[at : at + size], None)
    choice.finish("length")

    assert sink.whole() == text_of(tokens)
    assert sink.reasons == {0: "length"}


def test_a_character_split_over_tokens_goes_out_whole() -> None:
    made, sink = exchange()
    [choice] = made.choices
    tokens = tokens_of("日🙂")
    assert len(tokens) > 2, "this vocabulary spells them byte by byte"

    for token in tokens:
        choice.deliver([token], None)

    assert sink.texts == {0: ["日", "🙂"]}


def test_half_a_character_at_the_end_shows_as_one_that_could_not_be_read() -> None:
    made, sink = exchange()
    [choice] = made.choices

    choice.deliver(tokens_of("日")[:-1], None)
    assert not made.begun.is_set(), "there is nothing to show yet"
    choice.finish("length")

    assert sink.whole() == "\ufffd"


@given(st.data())
def test_a_stop_string_ends_the_text_wherever_the_tokens_cut_it(data: st.DataObject) -> None:
    before = data.draw(st.text("xyz ", max_size=6))
    tokens = tokens_of(f"{before}STOP and more")
    cuts = sorted(data.draw(st.sets(st.integers(1, len(tokens) - 1))))
    made, sink = exchange(1, "STOP", "never")
    [choice] = made.choices

    pieces = [tokens[a:b] for a, b in zip([0, *cuts], [*cuts, len(tokens)], strict=True)]
    stopped = [choice.deliver(piece, None) for piece in pieces]

    assert any(stopped)
    assert sink.whole() == before


def test_what_might_have_become_a_stop_string_is_text_after_all() -> None:
    made, sink = exchange(1, "STOP")
    [choice] = made.choices

    choice.deliver(tokens_of("xSTO"), None)
    assert sink.whole() == "x"
    choice.finish("length")

    assert sink.whole() == "xSTO"
    assert sink.reasons == {0: "length"}


def test_a_last_half_character_can_complete_a_stop_string() -> None:
    made, sink = exchange(1, "x\ufffd")
    [choice] = made.choices

    choice.deliver([*tokens_of("ax"), *tokens_of("日")[:-1]], None)
    choice.finish("length")

    assert sink.whole() == "a"
    assert sink.reasons == {0: "stop"}


def test_an_exchange_ends_with_the_last_of_its_choices() -> None:
    made, _ = exchange(3)
    for choice in made.choices:
        assert not made.ended.is_set()
        choice.finish("stop")

    assert made.ended.is_set()
    assert made.begun.is_set()
    assert made.error is None


def test_one_choice_that_fails_fails_them_all_with_the_first_error() -> None:
    made, _ = exchange(3)
    first = errors.unavailable("first", 1.0)

    made.fail(first)
    made.fail(errors.unavailable("second", 1.0))

    assert made.error is first
    assert made.ended.is_set()
    assert made.begun.is_set()


@pytest.mark.parametrize(("prompts", "choices"), [(1, 1), (1, 3), (2, 2), (2, 6)])
def test_usage_counts_each_prompt_once_and_every_answer(prompts: int, choices: int) -> None:
    made, _ = exchange(choices)
    per_prompt = choices // prompts
    for choice in made.choices:
        prompt = choice.index // per_prompt
        choice.session.begin(0.0)
        choice.session.step(Assigned(0, None, WORKER, 10 * (prompt + 1)), 0.0)
        chunk = Chunk(choice.number, 0, 0, [1, 2], cached_tokens=prompt + 1)
        choice.session.step(Arrived(chunk), 0.0)

    usage = made.usage(prompts)

    assert usage.prompt_tokens == sum(10 * (prompt + 1) for prompt in range(prompts))
    assert usage.completion_tokens == 2 * choices
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens == sum(range(1, prompts + 1))


def test_an_answer_that_cannot_be_read_fails_alone() -> None:
    class Broken(AnswerParser):
        def push(self, text: str) -> list[Part]:
            raise RecursionError(text)

    made, sink = exchange()
    [choice] = made.choices
    choice._parser = Broken(None, None)
    choice.deliver(tokens_of("hello"), None)
    choice.deliver(tokens_of("hello"), None)
    choice.finish("stop")

    assert made.ended.is_set()
    assert made.error is not None
    assert made.error.status == 500
    assert "hello" not in made.error.message
    assert sink.texts == {}
