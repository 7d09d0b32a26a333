"""The registry: who is there, and what operators have written down.

One entry a mailbox, bound to the life of the node that wrote it. One record a thing written down,
bound to nobody's life: it stays until it is erased.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

from actors.runtime.address import Address
from actors.runtime.message import WIRE_VERSION

EMPTY_META = msgspec.Raw(b"{}")


class State(enum.StrEnum):
    """Where an actor is in its life."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One mailbox, as others see it. Stored as JSON, so that `etcdctl get` shows it plainly."""

    role: str
    instance: int
    incarnation: int = 0
    state: State = State.STARTING
    node: str
    host: str
    pid: int
    pid_started: int = 0
    """Start time of the process in clock ticks after boot: tells a recycled pid apart."""
    wire: int = WIRE_VERSION
    """The version of the wire format that it speaks. Nobody of another one sends it anything."""
    meta: msgspec.Raw = EMPTY_META
    """What the role publishes of itself (a worker: its model and limits), as JSON."""

    @property
    def address(self) -> Address:
        return Address(self.role, self.instance, self.incarnation)

    @property
    def name(self) -> str:
        return f"{self.role}/{self.instance}"


class Put(msgspec.Struct, frozen=True):
    """An entry was written."""

    entry: Entry


class Deleted(msgspec.Struct, frozen=True):
    """An entry is gone: its holder left, or its lease ran out."""

    name: str


class Listed(msgspec.Struct, frozen=True):
    """Everything there is now; after the first connection, and after every gap in the watch."""

    entries: tuple[Entry, ...]


Observation = Put | Deleted | Listed
Observer = Callable[[Observation], None]
Loser = Callable[[Entry, int], None]
"""Takes an entry of ours, and the incarnation of the successor that its name was lost to."""
Health = Literal["connected", "lost"]
Records = Mapping[str, bytes]
"""Every record, by its key: some words with `/` between them, what follows the first is the
writer's business. Those who read them know what is in them; the registry does not."""


class Registry(ABC):
    """Where nodes write their mailboxes down and read those of others.

    Outages are the registry's business: it goes on trying, writes its entries again when it gets
    through, and lists afresh. Callers keep the last view meanwhile.

    `on_lost`, if set, is called once for each name that a later life turns out to have claimed: the
    lease ran out while this process was stopped or cut off.
    """

    on_records: Callable[[Records], None] | None = None
    """Called with all records before the first `Listed`, and again whenever one has changed."""
    on_lost: Loser | None = None

    @abstractmethod
    async def start(self, observer: Observer) -> None:
        """Connect; return after the first `Listed`. Raises PlaneUnavailable."""

    @abstractmethod
    async def claim(self, entry: Entry, *, above: int = 0) -> Entry:
        """Write a new entry under a name nobody else holds; return it with its incarnation.

        The incarnation is greater than every earlier one of the name, and than `above`. An entry
        of a predecessor known to be dead (its incarnation is at most `above`, or its process on
        this host has gone) is replaced. Raises NameTaken, PlaneUnavailable.
        """

    @abstractmethod
    async def update(self, entry: Entry) -> None:
        """Write an entry this registry claimed earlier again, with another state or meta.

        While the registry cannot be reached the entry is kept and written later. Nothing is
        written once it was withdrawn, or when a later life has the name.
        """

    @abstractmethod
    async def withdraw(self, entry: Entry) -> None:
        """Delete an entry claimed earlier. Best effort: the lease deletes it otherwise."""

    @abstractmethod
    async def record(self, key: str, value: bytes, *, replace: bool = False) -> bool:
        """Write a record that outlives every node; every registry of the namespace is told.

        False, and nothing is written, when there is one under this key already and `replace` does
        not say otherwise. Raises PlaneUnavailable.
        """

    @abstractmethod
    async def erase(self, key: str) -> bool:
        """Delete a record; False when there is none. Raises PlaneUnavailable."""

    @abstractmethod
    async def close(self) -> None:
        """Give the lease back, which deletes whatever is left of ours."""

    @property
    @abstractmethod
    def health(self) -> Health:
        """Whether the registry is reachable right now, as far as is known."""
