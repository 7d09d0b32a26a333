"""What the engine's thread tells the event loop of its worker."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engines.base import Output
from actors.engines.tensorrt_llm.stats import Stats
from actors.engines.threaded import Life
from actors.kv.blocks import Change


@dataclass(frozen=True, slots=True)
class Stepped:
    """What came out in one turn of the thread's loop, at most one output a request."""

    outputs: list[Output]


@dataclass(frozen=True, slots=True)
class CacheChanged:
    changes: list[Change]


@dataclass(frozen=True, slots=True)
class Measured:
    stats: Stats


Work = Stepped | CacheChanged | Measured
Report = Life | Work
