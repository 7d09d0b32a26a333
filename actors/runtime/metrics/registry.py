"""Counters, gauges and histograms: made once, then two additions an event.

Nothing here takes a lock: a registry belongs to one event loop. A series is looked up by `labels`
once and kept by whoever counts; what is left in the hot path is `add` or `observe` on an object of
fixed size.
"""

from __future__ import annotations

import re
import typing
from bisect import bisect_left
from collections.abc import Callable, Sequence

from actors.runtime.metrics.family import Family, Kind, Point

SERIES_LIMIT = 500
"""Of one family. What comes after shares one series, whose labels all say `other`: a label whose
values come from outside can then cost neither memory nor the reader's patience."""
OTHER = "other"
SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0),
)
"""Bounds for whole requests and their stages."""
FRACTIONS_OF_A_SECOND = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5),
)
"""Bounds for the time between tokens, and for what ought to take none."""
SIZES = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)
"""Bounds for numbers of tokens."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Counter:
    """A number that only grows. Its name ends in `_total`."""

    __slots__ = ("value",)

    def __init__(self, _bounds: tuple[float, ...]) -> None:
        self.value = 0.0

    def add(self, amount: float = 1.0) -> None:
        self.value += amount

    def mirror(self, total: float) -> None:
        """Take over what somebody else has counted."""
        self.value = total

    def point(self, labels: tuple[str, ...]) -> Point:
        return Point(labels, float(self.value))


class Gauge:
    """A number that goes up and down."""

    __slots__ = ("value",)

    def __init__(self, _bounds: tuple[float, ...]) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        self.value = value

    def point(self, labels: tuple[str, ...]) -> Point:
        return Point(labels, float(self.value))


class Histogram:
    """How often a number was how large, by fixed bounds; and the sum of all."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, or as many equal ones."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._sum += value * times

    def point(self, labels: tuple[str, ...]) -> Point:
        return Point(labels, float(self._sum), tuple(self._counts))


S = typing.TypeVar("S", Counter, Gauge, Histogram)
Definition = tuple[Kind, str, str, tuple[str, ...], tuple[float, ...]]


class Series(typing.Generic[S]):
    """A family under construction: one `S` for each combination of label values."""

    definition: Definition

    def __init__(
        self,
        make: Callable[[tuple[float, ...]], S],
        kind: Kind,
        name: str,
        text: str,
        names: tuple[str, ...],
        bounds: tuple[float, ...] = (),
    ) -> None:
        self._make: Callable[[tuple[float, ...]], S] = make
        self.definition = (kind, name, text, names, bounds)
        self._names = names
        self._bounds = bounds
        self._series: dict[tuple[str, ...], S] = {}
        if not names:
            self.labels()

    def labels(self, *values: str) -> S:
        """The series with these label values, in the order of their names; keep it."""
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self._names):
                raise ValueError(f"{self.definition[1]}: labels {self._names}, not {values}")
            if len(self._series) >= SERIES_LIMIT and values != (other := (OTHER,) * len(values)):
                return self.labels(*other)
            found = self._series[values] = self._make(self._bounds)
        return found

    def forget(self) -> None:
        """Begin anew: for what is written as a whole at each collection."""
        self._series.clear()

    def family(self) -> Family:
        kind, name, text, names, bounds = self.definition
        points = tuple(one.point(values) for values, one in self._series.items())
        return Family(name=name, kind=kind, help=text, labels=names, bounds=bounds, points=points)


AnySeries = Series[Counter] | Series[Gauge] | Series[Histogram]


class Metrics:
    """All families of one node."""

    def __init__(self) -> None:
        self._families: dict[str, AnySeries] = {}
        self._collectors: list[Callable[[], None]] = []

    def counter(self, name: str, text: str, labels: Sequence[str] = ()) -> Series[Counter]:
        """Raises ValueError for a name against Prometheus's conventions, or one that stands for
        something else already; asked again for the same, gives the same."""
        if not name.endswith("_total"):
            raise ValueError(f"{name}: a counter's name ends in _total")
        return self._define(Series(Counter, "counter", name, text, tuple(labels)))

    def gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Series[Gauge]:
        """As `counter`."""
        return self._define(Series(Gauge, "gauge", name, text, tuple(labels)))

    def histogram(
        self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = SECONDS
    ) -> Series[Histogram]:
        """As `counter`. `bounds`: ascending."""
        if list(bounds) != sorted(set(bounds)):
            raise ValueError(f"{name}: bounds ascend, unlike {bounds}")
        limits = tuple(float(bound) for bound in bounds)
        return self._define(Series(Histogram, "histogram", name, text, tuple(labels), limits))

    def before_collect(self, collector: Callable[[], None]) -> None:
        """Have a function bring levels up to date whenever somebody wants to read."""
        self._collectors.append(collector)

    def collect(self) -> tuple[Family, ...]:
        """Everything as it is now, by name."""
        for collector in self._collectors:
            collector()
        return tuple(self._families[name].family() for name in sorted(self._families))

    def _define(self, series: Series[S]) -> Series[S]:
        kind: Kind = series.definition[0]
        name: str = series.definition[1]
        text: str = series.definition[2]
        names: tuple[str, ...] = series.definition[3]
        if not all(map(_NAME.fullmatch, (name, *names))) or "le" in names:
            raise ValueError(f"{name} {names}: names are lower case, and `le` is Prometheus's")
        if not text or (kind == "gauge" and name.endswith("_total")):
            raise ValueError(f"{name}: needs a help text, and only a counter's name ends in _total")
        known = self._families.setdefault(name, series)
        if known.definition != series.definition:
            raise ValueError(f"{name} is defined twice: {known.definition}, {series.definition}")
        assert isinstance(known, Series), "of the same definition, so of the same kind"
        return known  # type: ignore[return-value]  # the definition says which kind it is
