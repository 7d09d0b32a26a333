"""A registry in memory, shared by the nodes of one process: for tests, simulation and `chat`."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from actors.runtime.errors import NameTaken
from actors.runtime.registry.base import (
    Deleted,
    Entry,
    Health,
    Listed,
    Observer,
    Put,
    Records,
    Registry,
)


class LocalStore:
    """What the local registries of one process share. Revisions only grow, as in etcd."""

    def __init__(self) -> None:
        self.revision = 0
        self.entries: dict[str, Entry] = {}
        self.records: dict[str, bytes] = {}
        self._observers: list[Observer] = []
        self._readers: list[Callable[[Records], None]] = []

    def record(self, key: str, value: bytes | None) -> None:
        """Write a record down; None erases it."""
        self.revision += 1
        if value is None:
            del self.records[key]
        else:
            self.records[key] = value
        for reader in tuple(self._readers):
            reader(dict(self.records))

    def write(self, entry: Entry) -> None:
        self.revision += 1
        self.entries[entry.name] = entry
        for observer in tuple(self._observers):
            observer(Put(entry))

    def delete(self, name: str) -> None:
        if self.entries.pop(name, None) is None:
            return
        self.revision += 1
        for observer in tuple(self._observers):
            observer(Deleted(name))

    def attach(self, observer: Observer, reader: Callable[[Records], None] | None) -> None:
        if reader is not None:
            self._readers.append(reader)
            reader(dict(self.records))
        self._observers.append(observer)
        observer(Listed(tuple(self.entries.values())))

    def detach(self, observer: Observer, reader: Callable[[Records], None] | None) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
        if observer in self._observers:
            self._observers.remove(observer)


class LocalRegistry(Registry):
    """One node's view of a `LocalStore`."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._observer: Observer | None = None
        self._mine: dict[str, int] = {}

    async def start(self, observer: Observer) -> None:
        self._observer = observer
        self._store.attach(observer, self.on_records)

    async def claim(self, entry: Entry, *, above: int = 0) -> Entry:
        holder = self._store.entries.get(entry.name)
        if holder is not None and holder.incarnation > above:
            raise NameTaken(entry.name, f"{holder.node} (incarnation {holder.incarnation})")
        incarnation = max(self._store.revision, above) + 1
        claimed = msgspec.structs.replace(entry, incarnation=incarnation)
        self._store.revision = incarnation
        self._mine[entry.name] = incarnation
        self._store.write(claimed)
        return claimed

    async def update(self, entry: Entry) -> None:
        holder = self._store.entries.get(entry.name)
        if entry.name not in self._mine:
            return
        if holder is None or holder.incarnation <= entry.incarnation:
            self._store.write(entry)
            return
        del self._mine[entry.name]
        if self.on_lost is not None:
            self.on_lost(entry, holder.incarnation)

    async def withdraw(self, entry: Entry) -> None:
        self._mine.pop(entry.name, None)
        self._delete(entry.name, entry.incarnation)

    async def record(self, key: str, value: bytes, *, replace: bool = False) -> bool:
        if key in self._store.records and not replace:
            return False
        self._store.record(key, value)
        return True

    async def erase(self, key: str) -> bool:
        if key not in self._store.records:
            return False
        self._store.record(key, None)
        return True

    async def close(self) -> None:
        if self._observer is not None:
            self._store.detach(self._observer, self.on_records)
        for name, incarnation in self._mine.items():
            self._delete(name, incarnation)
        self._mine.clear()

    @property
    def health(self) -> Health:
        return "connected"

    def _delete(self, name: str, incarnation: int) -> None:
        """Only ours: a successor may already have the name."""
        holder = self._store.entries.get(name)
        if holder is not None and holder.incarnation == incarnation:
            self._store.delete(name)
