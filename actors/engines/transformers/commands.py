"""What the event loop's side and the engine's thread say to each other.

The thread's queue needs no limit of its own: there is one `Submit` for each place the engine has,
at most one `Cancel` and one `Release` for each of them, and `Fetched`, `Compiled` and `Consumed`
answer something that was itself bounded.
"""

from __future__ import annotations

from typing import NamedTuple

from actors.engines.base import Output, Request
from actors.engines.threaded import Life
from actors.engines.transformers.guides import Guide
from actors.engines.transformers.stream import Stream
from actors.kv.blocks import Change
from actors.messages.cache import Load


class Submit(NamedTuple):
    request: Request


class Cancel(NamedTuple):
    id: int


class Release(NamedTuple):
    id: int


class Consumed(NamedTuple):
    """The reader took one step's outputs."""


class Stop(NamedTuple):
    """End the thread after the step it is in."""


class Fetched(NamedTuple):
    """A fetch is over; `error` is empty when the blocks arrived."""

    stream: Stream
    error: str


class Compiled(NamedTuple):
    """A grammar is ready to be followed, or `error` says why it is not."""

    stream: Stream
    guide: Guide | None
    error: str


Command = Compiled | Submit | Cancel | Release | Consumed | Stop | Fetched


class Stepped(NamedTuple):
    outputs: list[Output]
    changes: list[Change]
    load: Load
    taken: int
    """Submits seen so far."""
    expired: list[int]
    """Prefills whose blocks went because nobody fetched them in time."""


Report = Life | Stepped
