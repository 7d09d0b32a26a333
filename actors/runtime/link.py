"""What a node and its supervisor say to each other: JSON lines over a Unix socket.

The node connects, and connects again when the supervisor comes back, so a supervisor can be
replaced under running actors. Everything here is small and rare; no request passes this way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from actors.runtime.metrics.family import Family

LINE_LIMIT = 1024 * 1024
MEASURED_POINTS = 1000
"""Series in one `Measured`; of some 200 bytes each."""


class Note(msgspec.Struct, frozen=True, tag=True, tag_field="note"):
    """Base of what is said; one JSON object a line."""


class Hello(Note, frozen=True):
    """Child: who is calling. First on every connection."""

    node: str
    pid: int
    pid_started: int
    run: int
    """Which start of this node it is, as told in its specification."""


class Prepared(Note, frozen=True):
    """Child: all actors are ready. Both by actor name. Repeated after reconnecting."""

    incarnations: dict[str, int]
    meta: dict[str, msgspec.Raw] = {}
    """What each publishes of itself, as JSON."""


class Rehearsed(Note, frozen=True):
    """Child, a standby: loaded, and waiting for `Promote`."""


class Beat(Note, frozen=True):
    """Child: its event loop turns. Sent from that loop."""

    progress: int
    busy: bool
    lag_s: float
    """How late the loop was in sending this."""
    patience_s: float = 0.0
    """How long work may honestly take without progress; 0: no more than usual."""
    gauges: dict[str, dict[str, float]] = {}
    """By actor name: what `Actor.gauges` says, and its mailbox's depth."""
    troubles: dict[str, list[str]] = {}
    """By actor name: what `Actor.troubles` says, of those that have any."""
    silent_hosts: tuple[str, ...] = ()
    """Of which the node hears nothing; see `hosts`."""


class Measured(Note, frozen=True):
    """Child: what it counts, after `Measure`. In as many notes as it takes for none to be long."""

    number: int
    """Of the `Measure` that this answers."""
    families: tuple[Family, ...]
    last: bool


class Failing(Note, frozen=True):
    """Child: it is about to end abnormally, and why."""

    reason: str


class DrainOrder(Note, frozen=True):
    """Supervisor: take no new work, finish what is in hand, exit 0."""


class Measure(Note, frozen=True):
    """Supervisor: tell what you count."""

    number: int


class LogLevel(Note, frozen=True):
    """Supervisor: write down events from this level on."""

    level: str
    actor: str | None = None
    """By name; None: all, and those without an actor."""


class Promote(Note, frozen=True):
    """Supervisor, to a standby: go on as another node; take its actors' names and serve. The second
    one counts for nothing."""

    run: int
    above: dict[str, int]
    """By actor name: the incarnation of the last life known to be over."""
    node: str | None = None
    """Who it is from now on; None: who it was."""
    instance: int | None = None
    """Of its actors; None: as in its specification."""
    log: str | None = None
    """Appended to; where its standard output and error go from now on. None: where they went."""


Said = (
    Hello
    | Prepared
    | Rehearsed
    | Beat
    | Measured
    | Failing
    | DrainOrder
    | Measure
    | LogLevel
    | Promote
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Said)


def measured(number: int, families: Sequence[Family]) -> Iterator[Measured]:
    """An answer in notes of which none is over the limit."""
    together: list[Family] = []
    points = 0
    for family in families:
        if together and points + len(family.points) > MEASURED_POINTS:
            yield Measured(number, tuple(together), last=False)
            together, points = [], 0
        together.append(family)
        points += len(family.points)
    yield Measured(number, tuple(together), last=True)


class Link:
    """One end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, path: Path) -> Link:
        """Raises OSError when nobody listens."""
        reader, writer = await asyncio.open_unix_connection(str(path), limit=LINE_LIMIT)
        return cls(reader, writer)

    def say(self, note: Note) -> None:
        """Send; never waits. A lost connection shows in `hear`."""
        if not self._writer.is_closing():
            self._writer.write(_encoder.encode(note) + b"\n")

    async def hear(self) -> Said | None:
        """The next note; None when the other end has gone. Raises UNREADABLE."""
        try:
            line = await self._reader.readline()
        except (ConnectionError, ValueError):
            return None
        if not line.endswith(b"\n"):
            return None
        return decode(line)

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def decode(line: bytes) -> Said:
    """One line, decoded. Raises UNREADABLE (see the errors)."""
    said: Said = _decoder.decode(line)
    return said
