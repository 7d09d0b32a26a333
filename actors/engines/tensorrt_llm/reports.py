"""What the engine's thread tells the event loop of its worker."""

from __future__ import annotations

from dataclasses import dataclass

from actors.engines.base import Info, Output
from actors.engines.tensorrt_llm.stats import Stats
from actors.kv.blocks import Change


@dataclass(frozen=True, slots=True)
class Started:
    info: Info


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


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine cannot go on."""

    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The thread's last word."""


Report = Started | Stepped | CacheChanged | Measured | Failed | Ended
