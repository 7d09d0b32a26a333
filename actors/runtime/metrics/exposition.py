"""The text format that Prometheus scrapes, version 0.0.4.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate

from actors.runtime.metrics.family import Family, Point

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Labels = Sequence[tuple[str, str]]


def render(sources: Iterable[tuple[Labels, Iterable[Family]]]) -> str:
    """One document of the families of several sources, each series with its source's labels.

    Families of one name are written together, as the format asks. Of sources that disagree on what
    a name is (two releases side by side, say), the first one decides, and the others' are left out.
    """
    together: dict[str, tuple[Family, list[tuple[Labels, Family]]]] = {}
    for labels, families in sources:
        for family in families:
            first, members = together.setdefault(family.name, (family, []))
            if (family.kind, family.labels, family.bounds) == (
                first.kind,
                first.labels,
                first.bounds,
            ):
                members.append((labels, family))
    lines: list[str] = []
    for name in sorted(together):
        first, members = together[name]
        lines.append(f"# HELP {name} {_help(first.help)}\n# TYPE {name} {first.kind}\n")
        for labels, family in members:
            for point in family.points:
                own = zip(family.labels, point.labels, strict=True)
                _write(lines, family, point, [*labels, *own])
    return "".join(lines)


def _write(lines: list[str], family: Family, point: Point, labels: Labels) -> None:
    inside = ",".join(f'{name}="{_label(value)}"' for name, value in labels)
    braces = f"{{{inside}}}" if inside else ""
    if family.kind != "histogram":
        lines.append(f"{family.name}{braces} {_number(point.value)}\n")
        return
    comma = "," if inside else ""
    bounds = [*(_number(bound) for bound in family.bounds), "+Inf"]
    total = 0
    for bound, total in zip(bounds, accumulate(point.counts), strict=True):
        lines.append(f'{family.name}_bucket{{{inside}{comma}le="{bound}"}} {total}\n')
    lines.append(f"{family.name}_sum{braces} {_number(point.value)}\n")
    lines.append(f"{family.name}_count{braces} {total}\n")


def _number(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
