"""The stop matcher against a search of the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.text.stop_strings import StopAutomaton, StopMatcher

LETTERS = st.text("ab日", max_size=40)
STOPS = st.lists(st.text("ab日", min_size=1, max_size=5), max_size=5)


def _naive(text: str, stops: list[str]) -> tuple[str, str | None]:
    """What a server sees that looks after every character."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            longest = max(complete, key=len)
            return text[: end - len(longest)], longest
    return text, None


@given(LETTERS, STOPS, st.lists(st.integers(1, 5), min_size=1))
def test_any_split_gives_what_a_search_of_the_whole_text_gives(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    matcher = StopMatcher(stops)
    sent, position, turn = "", 0, 0
    while position < len(text):
        step = cuts[turn % len(cuts)]
        piece, _ = matcher.push(text[position : position + step])
        sent, position, turn = sent + piece, position + step, turn + 1
    assert (sent + matcher.flush(), matcher.matched) == _naive(text, stops)


@given(LETTERS, STOPS)
def test_no_more_is_held_back_than_could_begin_a_stop(text: str, stops: list[str]) -> None:
    matcher = StopMatcher(stops)
    sent, matched = matcher.push(text)
    if matched is None:
        beginnings = [
            size for size in range(len(text) + 1) if any(s.startswith(text[-size:]) for s in stops)
        ]
        longest = max((size for size in beginnings if size), default=0)
        assert len(text) - len(sent) == longest


def test_the_match_that_is_complete_first_wins_over_one_that_began_earlier() -> None:
    assert StopMatcher(["abcd", "bc"]).push("xabcd") == ("xa", "bc")


def test_of_matches_complete_at_one_character_the_longest_wins() -> None:
    assert StopMatcher(["c", "bc"]).push("abc") == ("a", "bc")


def test_nothing_goes_out_after_a_match() -> None:
    matcher = StopMatcher(["."])
    assert matcher.push("a.b") == ("a", ".")
    assert matcher.push("c") == ("", ".")
    assert matcher.flush() == ""


def test_without_stops_text_passes_untouched() -> None:
    matcher = StopMatcher([])
    assert matcher.push("a") == ("a", None)
    assert matcher.flush() == ""


def test_streams_that_share_an_automaton_do_not_disturb_each_other() -> None:
    automaton = StopAutomaton(["end"])
    first, second = StopMatcher(automaton), StopMatcher(automaton)
    assert first.push("en") == ("", None)
    assert second.push("d") == ("d", None)
    assert first.push("d") == ("", "end")


def test_an_empty_stop_string_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        StopMatcher(["a", ""])
