"""A chart of `bench.routing` as SVG, written by hand: bars need no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

COLOURS = ("#2563eb", "#0d9488", "#d97706", "#9333ea", "#6b7280")
WIDTH, HEIGHT = 300, 180
LEFT, TOP, GAP = 60, 70, 50


class Bar(Protocol):
    """What is drawn of one measurement."""

    workload: str
    strategy: str
    load: float
    ttft_p50_ms: float
    ttft_p99_ms: float


def plot(cells: Sequence[Bar]) -> str:
    """Time to first token by workload and load: bars to p50, whiskers to p99, logarithmic."""
    workloads = list(dict.fromkeys(cell.workload for cell in cells))
    loads = list(dict.fromkeys(cell.load for cell in cells))
    strategies = list(dict.fromkeys(cell.strategy for cell in cells))
    values = [v for c in cells for v in (c.ttft_p50_ms, c.ttft_p99_ms) if v > 0]
    low = math.floor(math.log10(min(values, default=1.0)))
    high = max(math.ceil(math.log10(max(values, default=10.0))), low + 1)

    def height(value: float) -> float:
        return HEIGHT * (math.log10(max(value, 10**low)) - low) / (high - low)

    width = LEFT + len(workloads) * (WIDTH + GAP)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{TOP + HEIGHT + 60}" '
            'font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        (
            f'<text x="{LEFT}" y="20" font-size="15">Time to first token, ms: p50 (bar) and p99 '
            "(whisker), 8 workers</text>"
        ),
    ]
    for at, strategy in enumerate(strategies):
        x: float = LEFT + at * 120
        parts.append(
            f'<rect x="{x}" y="32" width="12" height="12" fill="{COLOURS[at % len(COLOURS)]}"/>'
            f'<text x="{x + 17}" y="43">{strategy}</text>'
        )
    for column, workload in enumerate(workloads):
        left = LEFT + column * (WIDTH + GAP)
        for power in range(low, high + 1):
            y = TOP + HEIGHT - height(10**power)
            parts.append(
                f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
                f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{10**power:g}</text>'
            )
        group = WIDTH / max(1, len(loads))
        bar = group * 0.8 / max(1, len(strategies))
        for cell in (one for one in cells if one.workload == workload):
            at = strategies.index(cell.strategy)
            x = left + loads.index(cell.load) * group + group * 0.1 + at * bar
            base, middle = TOP + HEIGHT, x + bar / 2
            p50, p99 = height(cell.ttft_p50_ms), height(cell.ttft_p99_ms)
            parts.append(
                f'<rect x="{x:.1f}" y="{base - p50:.1f}" width="{bar * 0.9:.1f}" '
                f'height="{p50:.1f}" fill="{COLOURS[at % len(COLOURS)]}"/>'
                f'<line x1="{middle:.1f}" x2="{middle:.1f}" y1="{base - p50:.1f}" '
                f'y2="{base - p99:.1f}" stroke="{COLOURS[at % len(COLOURS)]}" stroke-width="2"/>'
            )
        for at, load in enumerate(loads):
            x = left + (at + 0.5) * group
            parts.append(
                f'<text x="{x:.1f}" y="{TOP + HEIGHT + 18}" text-anchor="middle">{load:g} of '
                "capacity</text>"
            )
        parts.append(
            f'<text x="{left + WIDTH / 2:.1f}" y="{TOP + HEIGHT + 40}" text-anchor="middle" '
            f'font-size="14">{workload.replace("_", "-")}</text>'
        )
    return "\n".join([*parts, "</svg>", ""])
