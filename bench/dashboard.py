"""Draws the panels of `deploy/observability/dashboard.json` from a Prometheus as one SVG.

Not Grafana: each panel's own expressions are evaluated by that Prometheus over the last minutes,
and drawn as plain lines or numbers, so that the queries can be looked at with data in them.

    supervise topologies/disagg.yaml --web 9400
    prometheus --config.file deploy/observability/prometheus.yaml
    python -m bench.dashboard --prometheus http://127.0.0.1:9090 --minutes 5 > dashboard.svg
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import urllib.error
import urllib.request
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

DASHBOARD = Path(__file__).parents[1] / "deploy" / "observability" / "dashboard.json"
COLOURS = ("#2563eb", "#0d9488", "#d97706", "#9333ea", "#dc2626", "#65a30d", "#6b7280", "#db2777")
UNIT_X, UNIT_Y = 60, 26
"""Pixels of one of Grafana's 24 columns, and of one of its rows."""
STEPS = 120
"""Points of a line."""
LEGENDS = 5
"""Of one panel; the rest are counted."""
Box = tuple[float, float, float, float]


class Line(NamedTuple):
    """One series of a panel."""

    name: str
    points: list[tuple[float, float]]


class Span(NamedTuple):
    """What is looked at, in seconds since 1970."""

    start: float
    end: float

    def share(self, at: float) -> float:
        """0 at the start, 1 at the end."""
        return (at - self.start) / (self.end - self.start)


def ask(prometheus: str, expression: str, legend: str, span: Span, rate_s: int) -> list[Line]:
    """What Prometheus makes of an expression. Raises OSError."""
    for name, value in (("$__rate_interval", f"{rate_s}s"), ("$namespace", ".*"), ("$model", ".*")):
        expression = expression.replace(name, value)
    asked = {
        "query": expression,
        "start": span.start,
        "end": span.end,
        "step": (span.end - span.start) / STEPS,
    }
    url = f"{prometheus}/api/v1/query_range?{urlencode(asked)}"
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 - given by who runs it
        found = json.load(response)["data"]["result"]
    lines = []
    for series in found:
        name = legend
        for label, value in series["metric"].items():
            name = name.replace("{{" + label + "}}", value)
        points = [(at, float(value)) for at, value in series["values"]]
        lines.append(Line(name, [point for point in points if math.isfinite(point[1])]))
    return [line for line in lines if line.points]


def number(value: float, unit: str) -> str:
    """A value with its unit, short."""
    match unit:
        case "percentunit":
            return f"{value:.0%}"
        case "s":
            return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"
        case _:
            per = {"reqps": "/s", "Bps": "B/s", "bytes": "B"}.get(unit, "")
            for size, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
                if value >= size:
                    return f"{value / size:.3g} {prefix}{per}"
            return f"{value:.3g} {per}".rstrip()


def text(x: float, y: float, words: str, size: int = 11, colour: str = "#111827") -> str:
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}">{escape(words)}</text>'
    )


def peak_of(line: Line) -> float:
    """The highest value of a line."""
    return max(value for _, value in line.points)


def graph(lines: list[Line], unit: str, box: Box, span: Span) -> list[str]:
    """Lines over time, from nothing to the highest value."""
    x0, y0, width, height = box
    peak = 1.0 if unit == "percentunit" else max(map(peak_of, lines)) or 1.0
    highest = peak * 1.15  # the number of the peak stands above the lines
    base = y0 + height
    parts = [
        f'<path d="M{x0:.0f} {y0:.0f}V{base:.0f}H{x0 + width:.0f}" stroke="#d1d5db" fill="none"/>',
        f'<path d="M{x0:.0f} {base - height / 1.15:.0f}h{width:.0f}" stroke="#f3f4f6"/>',
        text(x0 + 3, y0 + 6, number(peak, unit), 10, "#6b7280"),
    ]
    for line, colour in zip(lines, COLOURS * len(lines), strict=False):
        path = "L".join(
            f"{x0 + width * span.share(at):.1f} {base - height * min(v / highest, 1.0):.1f}"
            for at, v in line.points
        )
        parts.append(f'<path d="M{path}" stroke="{colour}" fill="none" stroke-width="1.5"/>')
    return parts


def panel(one: dict[str, Any], lines: list[Line], span: Span) -> list[str]:
    """One panel in its place."""
    grid, unit = one["gridPos"], one.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
    x, y = grid["x"] * UNIT_X + 4, grid["y"] * UNIT_Y + 4
    width, height = grid["w"] * UNIT_X - 8, grid["h"] * UNIT_Y - 8
    if one["type"] == "row":
        return [text(x, y + 15, one["title"], 14)]
    frame = (
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="#fff" stroke="#e5e7eb"/>'
    )
    parts = [frame, text(x + 8, y + 17, one["title"], 12)]
    if not lines:
        return [*parts, text(x + 8, y + height / 2 + 10, "no data", 12, "#9ca3af")]
    if one["type"] == "stat":
        return [*parts, text(x + 8, y + height - 20, number(lines[0].points[-1][1], unit), 26)]
    if len(lines) > LEGENDS:
        lines = sorted(lines, key=peak_of, reverse=True)
    shown = lines[:LEGENDS]
    box = (x + 8, y + 28, width - 16, height - 48 - 13 * len(shown))
    parts += graph(lines, unit, box, span)
    for index, (line, colour) in enumerate(zip(shown, COLOURS, strict=False)):
        more = f", and {len(lines) - LEGENDS} more" if index == LEGENDS - 1 < len(lines) - 1 else ""
        words = f"{line.name}: {number(line.points[-1][1], unit)}{more}"
        parts.append(text(x + 8, y + height - 8 - 13 * (len(shown) - 1 - index), words, 10, colour))
    return parts


def draw(prometheus: str, minutes: float, rate_s: int) -> str:
    """The whole dashboard. Raises OSError."""
    panels = json.loads(DASHBOARD.read_bytes())["panels"]
    now = time.time()
    span = Span(now - minutes * 60, now)
    bottom = max(one["gridPos"]["y"] + one["gridPos"]["h"] for one in panels) * UNIT_Y + 8
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{24 * UNIT_X}" height="{bottom}" '
            'font-family="sans-serif"><rect width="100%" height="100%" fill="#f9fafb"/>'
        )
    ]
    for one in panels:
        lines: list[Line] = []
        for target in one.get("targets", []):
            lines += ask(prometheus, target["expr"], target["legendFormat"], span, rate_s)
        parts += panel(one, lines, span)
    return "\n".join([*parts, "</svg>"])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prometheus", default="http://127.0.0.1:9090", metavar="URL")
    parser.add_argument("--minutes", type=float, default=30.0, help="how far back (default 30)")
    parser.add_argument(
        "--rate-s", type=int, default=60, help="what rates are taken over (default 60): 4 scrapes"
    )
    options = parser.parse_args()
    try:
        print(draw(options.prometheus.rstrip("/"), options.minutes, options.rate_s))
    except urllib.error.HTTPError as error:
        print(f"{options.prometheus}: {error.read().decode()[:500]}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{options.prometheus}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
