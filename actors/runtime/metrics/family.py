"""What a registry holds at one moment, as it travels from a node to its supervisor."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal["counter", "gauge", "histogram"]


class Point(msgspec.Struct, frozen=True, array_like=True, omit_defaults=True):
    """One series at one moment."""

    labels: tuple[str, ...]
    """Values, in the order of the family's names."""
    value: float
    """Of a histogram: the sum of what was observed."""
    counts: tuple[int, ...] = ()
    """Of a histogram: observations up to each bound and above the one before; the last entry is
    of those above all bounds."""


class Family(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All series of one name."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Of a histogram: upper bounds of its buckets, inclusive, ascending, without infinity."""
    points: tuple[Point, ...] = ()
