from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.console.paint import Paint
from supervisor.console.text import (
    cells,
    clip,
    fit,
    painted,
    printable,
    shown_number,
    shown_size,
)

NO_DEADLINE = settings(deadline=None)  # the machine may be busy
TEXTS = st.text(max_size=40)


@NO_DEADLINE
@given(text=TEXTS)
def test_nothing_that_a_terminal_obeys_is_left(text: str) -> None:
    shown = printable(f"\x1b[2J{text}\r\n\x07\u202e")

    assert shown.isprintable()
    assert len(shown) == len(text) + 8


@NO_DEADLINE
@given(text=TEXTS.map(printable), width=st.integers(0, 50))
def test_a_clipped_text_is_never_wider_than_allowed(text: str, width: int) -> None:
    clipped = clip(text, width)

    assert cells(clipped) <= width
    assert clipped == text or cells(text) > width


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [("router", 6, "router"), ("router", 5, "rout…"), ("日本語", 4, "日…"), ("router", 0, "")],
)
def test_what_was_left_out_is_marked(text: str, width: int, shown: str) -> None:
    assert clip(text, width) == shown


@NO_DEADLINE
@given(
    texts=st.lists(st.tuples(st.sampled_from(("", "red", "bold")), TEXTS.map(printable))),
    width=st.integers(0, 60),
)
def test_a_line_fits_however_many_colours_it_has(texts: list[tuple[str, str]], width: int) -> None:
    fitted = fit(texts, width)

    plain = painted(fitted, Paint(colours=False))
    assert cells(plain) <= width
    assert plain == clip("".join(text for _, text in texts), width)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0 B"), (999, "999 B"), (1200, "1.2 kB"), (9_960_000, "10 MB"), (999_600, "1.0 MB")],
)
def test_a_size_has_two_or_three_digits_and_a_unit(size: int, shown: str) -> None:
    assert shown_size(size) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (0.44, "0.4"), (9.96, "10"), (9999, "9999"), (15000, "15k"), (1_500_000, "1.5M")],
)
def test_a_number_is_short(value: float, shown: str) -> None:
    assert shown_number(value) == shown
