"""Lines that fit: a line is spans of one colour each, clipped before it is painted."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from supervisor.console.paint import Paint

Span = tuple[str, str]
"""A colour of `Paint`, or the empty text for none; and what is written in it."""
Line = tuple[Span, ...]

ELLIPSIS = "…"
_SIZES = ("B", "kB", "MB", "GB", "TB")


def printable(text: str) -> str:
    """One line without anything that a terminal would obey: what a child wrote, or why it ended,
    is foreign text."""
    return "".join(_harmless(character) for character in text)


def _harmless(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else "·"


def cells(text: str) -> int:
    """How many columns of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_width, text))


def _width(character: str) -> int:
    if unicodedata.category(character) in {"Mn", "Me"}:
        return 0
    return 2 if unicodedata.east_asian_width(character) in {"W", "F"} else 1


def clip(text: str, width: int) -> str:
    """At most so many columns; where something had to go stands an ellipsis."""
    if cells(text) <= width:
        return text
    if width <= 0:
        return ""
    return f"{_cut(text, width - 1)}{ELLIPSIS}"


def _cut(text: str, width: int) -> str:
    used = 0
    for at, character in enumerate(text):
        used += _width(character)
        if used > width:
            return text[:at]
    return text


def fit(line: Iterable[Span], width: int) -> Line:
    """The line within so many columns."""
    spans = tuple(line)
    if sum(cells(text) for _, text in spans) <= width:
        return spans
    fitted: list[Span] = []
    left = width - 1
    for colour, text in spans:
        if cells(text) > left:
            if width > 0:
                fitted.append((colour, f"{_cut(text, left)}{ELLIPSIS}"))
            break
        fitted.append((colour, text))
        left -= cells(text)
    return tuple(fitted)


def painted(line: Iterable[Span], paint: Paint) -> str:
    """The line as it is written."""
    return "".join(paint(colour, text) if colour else text for colour, text in line)


def shown_size(size_bytes: float) -> str:
    """`512 B`, `1.2 kB`, `340 MB`: three digits and a unit of 1000."""
    value, unit = float(size_bytes), 0
    while value >= 999.5 and unit < len(_SIZES) - 1:
        value /= 1000
        unit += 1
    digits = 1 if value < 9.95 and unit else 0
    return f"{value:.{digits}f} {_SIZES[unit]}"


def shown_number(value: float) -> str:
    """At most five characters below ten million: `0`, `0.4`, `12`, `1500`, `15k`, `1.5M`."""
    if value < 99.95:
        return f"{value:.1f}".removesuffix(".0")
    for limit, divisor, unit in ((9999.5, 1, ""), (999_500, 1e3, "k")):
        if value < limit:
            return f"{value / divisor:.0f}{unit}"
    return f"{value / 1e6:.1f}M"
