"""Plots as SVG: silences by kind of fault, and delivered tokens over time with the faults."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from html import escape

from bench.disturb.judge import Row
from bench.disturb.kinds import KINDS, Strike
from bench.disturb.rounds import StreamNote

LEFT, WIDTH, ROW = 230, 620, 24
LOW_MS, HIGH_MS = 10.0, 30_000.0
COLOURS = {
    "generation": "#d62728",
    "context": "#ff7f0e",
    "router": "#9467bd",
    "preprocessor": "#8c564b",
    "ingress": "#1f77b4",
    "nats": "#2ca02c",
    "etcd": "#17becf",
    "supervisor": "#7f7f7f",
}


def of_kinds(rows: Sequence[Row]) -> str:
    """One line a kind: p50 (dot), p99 (bar's end) and maximum (thin line) of the silence, and its
    bar (red tick). Logarithmic."""
    height = 60 + ROW * len(rows)
    parts = [_text(LEFT, 18, "widest silence a client saw: p50 •, p99 ▬, max —, limit |", 13)]
    decade = LOW_MS
    while decade <= HIGH_MS:
        x = _x(decade / 1000)
        label = f"{decade:.0f} ms" if decade < 1000 else f"{decade / 1000:.0f} s"
        parts += [_line(x, 30, x, height - 20, "#ddd"), _text(x - 14, height - 6, label, 10)]
        decade *= 10
    for index, one in enumerate(rows):
        y = 44 + ROW * index
        colour = COLOURS.get(one.kind.split("-")[0], "#444")
        parts.append(_text(6, y + 4, one.kind, 11))
        parts.append(_line(_x(one.p50_s), y, _x(one.max_s), y, colour))
        parts.append(_line(_x(one.p50_s), y, _x(one.p99_s), y, colour, 6))
        parts.append(f'<circle cx="{_x(one.p50_s):.1f}" cy="{y}" r="4" fill="{colour}"/>')
        bar_s = KINDS[one.kind].bar_s if one.kind in KINDS else None
        if bar_s is not None:
            parts.append(_line(_x(bar_s), y - 9, _x(bar_s), y + 9, "#e00", 2))
    return _svg(LEFT + WIDTH + 40, height, parts)


def of_time(
    tokens: Sequence[tuple[float, int]], strikes: Sequence[Strike], notes: Sequence[StreamNote]
) -> str:
    """Tokens a second over time; each fault is a coloured band, each failed stream a black dot."""
    if len(tokens) < 2:
        return _svg(LEFT + WIDTH, 40, [_text(6, 20, "too short to be drawn", 12)])
    began, ended = tokens[0][0], tokens[-1][0]
    rates = [
        (later[0], (later[1] - earlier[1]) / (later[0] - earlier[0]))
        for earlier, later in itertools.pairwise(tokens)
    ]
    peak = max(1.0, *(rate for _, rate in rates))
    scale = 1100 / (ended - began)

    def x(at: float) -> float:
        return 60 + (at - began) * scale

    parts = [_text(60, 16, f"tokens a second (top: {peak:.0f}) under faults", 13)]
    for one in strikes:
        colour = COLOURS.get(one.kind.split("-")[0], "#444")
        parts.append(
            f'<rect x="{x(one.at):.1f}" y="30" width="{max(1.0, scale):.1f}" height="250" '
            f'fill="{colour}" opacity="0.5"><title>{escape(one.kind)} {escape(one.victim)}'
            "</title></rect>"
        )
    points = " ".join(f"{x(at):.1f},{280 - 250 * rate / peak:.1f}" for at, rate in rates)
    parts.append(f'<polyline points="{points}" fill="none" stroke="#222" stroke-width="1"/>')
    for note in notes:
        if note.verdict != "right":
            grey = "#999" if note.excused else "#000"
            parts.append(f'<circle cx="{x(note.ended_at):.1f}" cy="290" r="2" fill="{grey}"/>')
    for index, (role, colour) in enumerate(COLOURS.items()):
        parts.append(_line(60 + 130 * index, 310, 80 + 130 * index, 310, colour, 6))
        parts.append(_text(84 + 130 * index, 314, role, 11))
    return _svg(1200, 325, parts)


def _x(seconds: float) -> float:
    ms = min(HIGH_MS, max(LOW_MS, seconds * 1000))
    return LEFT + WIDTH * math.log(ms / LOW_MS) / math.log(HIGH_MS / LOW_MS)


def _text(x: float, y: float, text: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{escape(text)}</text>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" '
        f'stroke-width="{width}"/>'
    )


def _svg(width: float, height: float, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>\n'
        f"{body}\n</svg>\n"
    )
