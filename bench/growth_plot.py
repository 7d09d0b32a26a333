"""Charts of `bench.growth` as SVG, written by hand: lines need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

COLOURS = ("#2563eb", "#0d9488", "#d97706", "#9333ea", "#6b7280", "#dc2626")
WIDTH, HEIGHT = 330, 200
LEFT, TOP, GAP_X, GAP_Y = 70, 60, 110, 110
CHARTS = (
    ("streams", "CPU for a token, us", "us_per_token"),
    ("streams", "memory for a stream, kB", "kb_per_stream"),
    ("workers", "the router", ""),
    ("prompts", "CPU for a prompt token, us", "us_per_prompt_token"),
    ("nodes", "CPU for a token, us", "us_per_token"),
)


class Measured(Protocol):
    """What is drawn of one measurement."""

    what: str
    size: int
    figures: dict[str, float]


def plot(points: Sequence[Measured]) -> str:
    """One chart for each thing that grew; both axes logarithmic."""
    charts = [
        (f"{what}: {title}", lines)
        for what, title, prefix in CHARTS
        if (lines := _lines([point for point in points if point.what == what], prefix))
    ]
    columns = 2
    rows = max(1, math.ceil(len(charts) / columns))
    width, height = columns * (LEFT + WIDTH + GAP_X), rows * (TOP + HEIGHT + GAP_Y)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            'font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (title, lines) in enumerate(charts):
        x = LEFT + (number % columns) * (LEFT + WIDTH + GAP_X)
        y = TOP + (number // columns) * (TOP + HEIGHT + GAP_Y)
        parts += _chart(x, y, title, lines)
    return "\n".join([*parts, "</svg>", ""])


Lines = dict[str, list[tuple[float, float]]]


def _lines(points: Sequence[Measured], prefix: str) -> Lines:
    lines: Lines = {}
    for point in points:
        for name, value in point.figures.items():
            if name.startswith(prefix) and (prefix or name != "serving_s") and value > 0:
                label = name.removeprefix(prefix).strip() or "all"
                lines.setdefault(label, []).append((point.size, value))
    return lines


def _chart(left: float, top: float, title: str, lines: Lines) -> list[str]:
    xs = [x for line in lines.values() for x, _ in line]
    ys = [y for line in lines.values() for _, y in line]
    low, high = math.floor(math.log10(min(ys))), math.ceil(math.log10(max(ys)))
    high = max(high, low + 1)
    first, last = math.log10(min(xs)), math.log10(max(xs))

    def at(x: float, y: float) -> str:
        across = (math.log10(x) - first) / ((last - first) or 1.0)
        up = (math.log10(y) - low) / (high - low)
        return f"{left + WIDTH * across:.1f},{top + HEIGHT * (1 - up):.1f}"

    parts = [f'<text x="{left}" y="{top - 12}" font-size="14">{title}</text>']
    for power in range(low, high + 1):
        y = top + HEIGHT * (1 - (power - low) / (high - low))
        parts.append(
            f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
        )
    for size in sorted(set(xs)):
        x = at(size, 10.0**low).partition(",")[0]
        parts.append(f'<text x="{x}" y="{top + HEIGHT + 18}" text-anchor="middle">{size:g}</text>')
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(at(x, y) for x, y in line)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>'
            for x, y in (at(*point).split(",") for point in line)
        ]
        row, column = divmod(number, 2)
        parts.append(
            f'<text x="{left + column * 210}" y="{top + HEIGHT + 38 + 16 * row}" '
            f'fill="{colour}">{name}</text>'
        )
    return parts
