"""CPU of each service by case, as a share of the baseline's: SVG, written by hand."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Protocol

COLOURS = ("#6b7280", "#d97706", "#2563eb", "#0d9488", "#9333ea", "#dc2626")
ROW, BAR, LEFT, WIDTH, TOP = 24, 18, 330, 420, 60


class Cost(Protocol):
    """What is drawn of one run."""

    @property
    def service(self) -> str: ...
    @property
    def case(self) -> str: ...
    @property
    def us_per_request(self) -> float: ...


def plot(found: Sequence[Cost], services: Sequence[str], baseline: str) -> str:
    """Bars to the median of the rounds, whiskers over all of them."""
    cases = list(dict.fromkeys(one.case for one in found))
    shares: dict[tuple[str, str], list[float]] = {}
    for case in cases:
        base = [one.us_per_request for one in found if (one.case, one.service) == (case, baseline)]
        for service in services if base else ():
            shares[case, service] = [
                one.us_per_request / statistics.median(base)
                for one in found
                if (one.case, one.service) == (case, service)
            ]
    longest = max((share for many in shares.values() for share in many), default=1.0)
    scale = WIDTH / max(1.2, longest)
    group = ROW * len(services) + 16
    height = TOP + group * len(cases) + 30
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + 70}" '
            f'height="{height}" font-family="sans-serif" font-size="12">'
        ),
        '<rect width="100%" height="100%" fill="white"/>',
        (
            f'<text x="10" y="24" font-size="15">CPU of a request as a share of {baseline}\'s '
            "(bar: median; line: all rounds)</text>"
        ),
    ]
    for share in (0.5, 1.0):
        x = LEFT + share * scale
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 20}" stroke="#ccc"/>'
            f'<text x="{x:.1f}" y="{TOP - 12}" text-anchor="middle">{share:g}</text>'
        )
    for row, case in enumerate(cases):
        top = TOP + row * group
        parts.append(f'<text x="10" y="{top + 13}">{case}</text>')
        for at, service in enumerate(services):
            values = shares.get((case, service), [])
            if values:
                middle = statistics.median(values)
                parts += _bar(service, top + at * ROW, middle, values, scale, at)
    return "\n".join([*parts, "</svg>", ""])


def _bar(
    name: str, top: float, middle: float, values: Sequence[float], scale: float, at: int
) -> list[str]:
    low, high = LEFT + min(values) * scale, LEFT + max(values) * scale
    centre = top + BAR / 2
    return [
        f'<text x="{LEFT - 8}" y="{top + 13}" text-anchor="end">{name}</text>',
        (
            f'<rect x="{LEFT}" y="{top}" width="{middle * scale:.1f}" height="{BAR}" '
            f'fill="{COLOURS[at % len(COLOURS)]}"/>'
        ),
        f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{centre}" y2="{centre}" stroke="black"/>',
        f'<text x="{high + 6:.1f}" y="{top + 13}">{middle:.2f}</text>',
    ]
