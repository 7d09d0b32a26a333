"""What a node believes about who is there: the registry's view, made safe against its gaps.

Pure: observations and times in, changes out. Four rules make it more than a dictionary.

- Incarnations only grow. An observation of an older life than the one known is ignored, and a
  newer life implies the end of the older one.
- After an outage the registry's list may be short because others have not written their entries
  again yet. What is missing from a *second* list is kept for a grace period, so that serving
  goes on with the last known view.
- `Down` is reported once for each life, whatever source saw it first. Only a life that the registry
  alone gave up (its lease ran out while it was stopped, say) may come back, as the same life.
- Whoever cannot be talked to is known and not shown: the actors of a host that is silent, until it
  is heard again, and those that speak another version of the wire format, for good. Their lives
  have not ended, as far as is known here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from actors.runtime.address import Address
from actors.runtime.message import WIRE_VERSION
from actors.runtime.registry.base import Deleted, Entry, Listed, Observation, Put, State


class Up(msgspec.Struct, frozen=True):
    """An actor is there, or says something new of itself."""

    entry: Entry


class Left(msgspec.Struct, frozen=True):
    """One life of an actor has ended."""

    address: Address
    reason: str


Change = Up | Left


class Directory:
    """The known mailboxes. `grace_s`: how long an entry may be missing from the registry's list."""

    def __init__(self, grace_s: float = 15.0) -> None:
        self._grace_s = grace_s
        self._entries: dict[str, Entry] = {}
        self._by_role: dict[str, list[Entry]] = {}
        self._ended: dict[str, int] = {}
        self._left: dict[str, int] = {}
        self._missing_until: dict[str, float] = {}
        self._silent: set[str] = set()
        self._listed = False
        self._turn = 0

    def observe(self, observation: Observation, now: float) -> list[Change]:
        """Take in what the registry reported."""
        match observation:
            case Put(entry):
                return self._put(entry)
            case Deleted(name):
                return self._delete(name, "left the registry")
            case Listed(entries):
                return self._list(entries, now)

    def ended(self, address: Address, reason: str) -> list[Change]:
        """Take in that one life has ended, from a source faster than the registry."""
        told = self.has_ended(address)
        # Also when the registry told it: a witness is certain, and the life cannot come back.
        self._ended[address.name] = max(address.incarnation, self._ended.get(address.name, 0))
        if told:
            return []
        known = self._entries.get(address.name)
        changes: list[Change] = []
        if known is not None and known.incarnation < address.incarnation:
            changes += self._delete(known.name, "was replaced")
            known = None
        if known is not None:
            return self._delete(address.name, reason)
        # A life this node never saw begin; whoever monitors it by its address still wants to know.
        return [*changes, Left(address, reason)]

    def silent(self, host: str) -> list[Change]:
        """Take in that nothing is heard of a host."""
        hidden = [entry for entry in self.all() if entry.host == host]
        self._silent.add(host)
        for entry in hidden:
            self._index(entry.role)
        return [Left(entry.address, f"its host {host} is silent") for entry in hidden]

    def heard(self, host: str) -> list[Change]:
        """Take in that a silent host is heard again."""
        self._silent.discard(host)
        shown = [entry for entry in self.all() if entry.host == host]
        for entry in shown:
            self._index(entry.role)
        return [Up(entry) for entry in shown]

    @property
    def hosts(self) -> set[str]:
        """Of all that is known, also where it is not shown."""
        return {entry.host for entry in self._entries.values()}

    def unspoken(self) -> list[Entry]:
        """Those whose version of the wire format is not ours."""
        return [entry for entry in self._entries.values() if entry.wire != WIRE_VERSION]

    def expire(self, now: float) -> list[Change]:
        """Give up entries that stayed missing for the grace period."""
        overdue = [name for name, until in self._missing_until.items() if until <= now]
        changes: list[Change] = []
        for name in overdue:
            changes += self._delete(name, "its lease ran out")
        return changes

    @property
    def next_expiry(self) -> float | None:
        """When `expire` has something to do; None when nothing is missing."""
        return min(self._missing_until.values(), default=None)

    def find(self, name: str) -> Entry | None:
        entry = self._entries.get(name)
        return entry if entry is not None and self._shows(entry) else None

    def is_away(self, address: Address) -> bool:
        """Whether this life is over, or is known and not to be talked to now. One that was not
        heard of yet is not away."""
        known = self._entries.get(address.name)
        if known is not None and known.incarnation == address.incarnation:
            return not self._shows(known)
        return self.has_ended(address)

    def has_ended(self, address: Address) -> bool:
        """Whether this life is known to be over. A life not heard of yet may be about to appear:
        the registry's news and a message can overtake each other."""
        if address.incarnation <= 0:
            return False
        known = self._entries.get(address.name)
        if known is not None and known.incarnation >= address.incarnation:
            return known.incarnation > address.incarnation
        last = max(self._ended.get(address.name, 0), self._left.get(address.name, 0))
        return address.incarnation <= last

    def ready(self, role: str) -> list[Entry]:
        """The role's instances that take messages, by instance number."""
        return self._by_role.get(role, [])

    def pick(self, role: str) -> Entry | None:
        """One ready instance, in turns."""
        entries = self._by_role.get(role)
        if not entries:
            return None
        self._turn += 1
        return entries[self._turn % len(entries)]

    def all(self) -> list[Entry]:
        shown = (entry for entry in self._entries.values() if self._shows(entry))
        return sorted(shown, key=lambda entry: (entry.role, entry.instance))

    def _shows(self, entry: Entry) -> bool:
        return entry.host not in self._silent and entry.wire == WIRE_VERSION

    def _list(self, entries: Iterable[Entry], now: float) -> list[Change]:
        changes: list[Change] = []
        present = set()
        for entry in entries:
            present.add(entry.name)
            changes += self._put(entry)
        for name in list(self._entries):
            if name not in present and self._listed:
                self._missing_until.setdefault(name, now + self._grace_s)
        self._listed = True
        return changes

    def _put(self, entry: Entry) -> list[Change]:
        # Nobody who claims a name writes such a life; somebody by hand may.
        if entry.incarnation <= 0 or entry.incarnation <= self._ended.get(entry.name, 0):
            return []
        if entry.incarnation < self._left.get(entry.name, 0):
            return []
        known = self._entries.get(entry.name)
        changes: list[Change] = []
        if known is not None:
            if known.incarnation > entry.incarnation:
                return []
            if known.incarnation < entry.incarnation:
                changes += self._delete(entry.name, "was replaced")
        self._missing_until.pop(entry.name, None)
        if known == entry:
            return changes
        self._entries[entry.name] = entry
        self._index(entry.role)
        if self._shows(entry):
            changes.append(Up(entry))
        return changes

    def _delete(self, name: str, reason: str) -> list[Change]:
        self._missing_until.pop(name, None)
        entry = self._entries.pop(name, None)
        if entry is None:
            return []
        self._left[name] = entry.incarnation
        self._index(entry.role)
        # Of one that is not shown it was told when it was hidden, or never that it was there.
        return [Left(entry.address, reason)] if self._shows(entry) else []

    def _index(self, role: str) -> None:
        self._by_role[role] = sorted(
            (
                e
                for e in self._entries.values()
                if e.role == role and e.state is State.READY and self._shows(e)
            ),
            key=lambda entry: entry.instance,
        )
