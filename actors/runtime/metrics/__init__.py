"""Numbers a node keeps of itself, and the form in which Prometheus reads them.

    self._replays = self.metrics.counter(
        "understudy_replays_total", "Sequences submitted again.", ("model",)
    )
    self._replays.labels("capitals").add()

`registry` counts, `exposition` writes it down, `vitals` is what every node tells of itself. See
`docs/decisions/0023-metrics-of-our-own.md` for why there is no library in the token path.
"""

from actors.runtime.metrics.exposition import CONTENT_TYPE, render
from actors.runtime.metrics.family import Family, Point
from actors.runtime.metrics.registry import (
    FRACTIONS_OF_A_SECOND,
    SECONDS,
    SIZES,
    Counter,
    Gauge,
    Histogram,
    Metrics,
)

__all__ = [
    "CONTENT_TYPE",
    "FRACTIONS_OF_A_SECOND",
    "SECONDS",
    "SIZES",
    "Counter",
    "Family",
    "Gauge",
    "Histogram",
    "Metrics",
    "Point",
    "render",
]
