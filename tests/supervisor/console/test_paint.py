from __future__ import annotations

import io

import pytest

from supervisor.console.paint import Paint, shown_duration, wants_colours


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.00 s"),
        (0.354, "0.35 s"),
        (9.994, "9.99 s"),
        (9.999, "10 s"),
        (12.4, "12 s"),
        (59.6, "1 min 0 s"),
        (185, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (86399, "23 h 59 min"),
        (356400, "4 d 3 h"),
    ],
)
def test_durations_are_shown_in_two_units_at_most(seconds: float, text: str) -> None:
    assert shown_duration(seconds) == text


def test_colours_are_for_terminals_whose_users_did_not_refuse_them() -> None:
    assert wants_colours(Screen(), {"TERM": "xterm"})
    assert not wants_colours(Screen(), {"TERM": "xterm", "NO_COLOR": "1"})
    assert not wants_colours(Screen(), {"TERM": "dumb"})
    assert not wants_colours(io.StringIO(), {"TERM": "xterm"})


def test_without_colours_the_text_is_untouched() -> None:
    assert Paint(colours=False)("red", "x") == "x"
    assert Paint(colours=True)("red", "x") == "\x1b[31mx\x1b[0m"
