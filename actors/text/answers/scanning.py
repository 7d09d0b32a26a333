"""Finding markers in text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Cut(NamedTuple):
    """Text up to a marker, the marker (empty when there is none yet), and what is behind it.

    Without a marker `rest` is a suffix that may be the beginning of one.
    """

    before: str
    marker: str
    rest: str


def cut(text: str, markers: Sequence[str]) -> Cut:
    """Cut text at the first of some markers. None of them may be a prefix of another."""
    at, found = len(text), ""
    for marker in markers:
        place = text.find(marker, 0, at + len(marker))
        if 0 <= place < at:
            at, found = place, marker
    if found:
        return Cut(text[:at], found, text[at + len(found) :])
    held = _beginning(text, markers)
    return Cut(text[: len(text) - held], "", text[len(text) - held :])


def _beginning(text: str, markers: Sequence[str]) -> int:
    """The length of the longest suffix that begins a marker."""
    longest = max(map(len, markers), default=1) - 1
    for length in range(min(longest, len(text)), 0, -1):
        suffix = text[len(text) - length :]
        if any(marker.startswith(suffix) for marker in markers):
            return length
    return 0
