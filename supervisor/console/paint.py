"""Colours, where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

_CODES = {"red": 31, "green": 32, "yellow": 33, "cyan": 36, "bold": 1, "dim": 2}


class Paint:
    """Puts a colour on a text, or leaves it as it is."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def __call__(self, colour: str, text: str) -> str:
        return f"\x1b[{_CODES[colour]}m{text}\x1b[0m" if self._colours and text else text


def wants_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether it is a terminal that can show them, and nobody said no (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


def shown_duration(seconds: float) -> str:
    """`0.35 s`, `12 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`."""
    if seconds < 9.995:
        return f"{seconds:.2f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    for large, small, unit, name, part in (
        (3600, 60, 60, "min", "s"),
        (86400, 3600, 60, "h", "min"),
    ):
        if whole < large:
            return f"{whole // small} {name} {whole % small // (small // unit)} {part}"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
