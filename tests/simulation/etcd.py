"""A simulated etcd, behind the client that the real registry uses.

The registry's own code runs unchanged; what is replaced is aetcd's client. The server keeps
revisions, leases and watches as etcd does: writes are transactions on revisions, a lease that is
not renewed takes its keys along, a watch reports in order from the revision it asked for, and one
that asks for what was compacted is cancelled.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aetcd
from aetcd.rtypes import EventKind

from actors.runtime.registry.etcd_client import CALL_TIMEOUT_S
from tests.simulation.loop import CURRENT, Proc, SimLoop

LATENCY_S = (0.0002, 0.003)
RETRY_S = 0.5
KEEPALIVE_S = 13.0
"""A watch over a dead connection ends when gRPC's keep-alive gives up."""


class Key(NamedTuple):
    """What `get` returns."""

    key: bytes
    value: bytes
    mod_revision: int
    lease: int


class Header(NamedTuple):
    revision: int


class Range(NamedTuple):
    header: Header
    kvs: list[Key]


class PutResponse(NamedTuple):
    header: Header


class Response(NamedTuple):
    response_put: PutResponse


class Lease(NamedTuple):
    id: int
    TTL: int


class Event(NamedTuple):
    kind: EventKind
    kv: Key
    revision: int


class Compare(NamedTuple):
    key: bytes
    revision: int


class Op(NamedTuple):
    key: bytes
    value: bytes | None
    lease: int


class Backup(NamedTuple):
    """What `etcdctl snapshot` saves."""

    keys: dict[bytes, Key]
    leases: dict[int, float]
    revision: int


class _Mod:
    """`transactions.mod(key) == revision`."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __eq__(self, revision: object) -> Compare:  # type: ignore[override]
        assert isinstance(revision, int)
        return Compare(self._key, revision)

    __hash__ = None  # type: ignore[assignment]


class Transactions:
    """aetcd's way to write a transaction down."""

    @staticmethod
    def mod(key: bytes) -> _Mod:
        return _Mod(key)

    @staticmethod
    def put(key: bytes, value: bytes, lease: int | None) -> Op:
        return Op(key, value, lease or 0)

    @staticmethod
    def delete(key: bytes) -> Op:
        return Op(key, None, 0)


class SimEtcd:
    """The server."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.up = True
        self.paused = False
        self.unreachable: set[Proc] = set()
        self.watch_lag_s = 0.0
        """How late news reaches the watchers."""
        self.revision = 1
        self.keys: dict[bytes, Key] = {}
        self.events: list[Event] = []
        self.compacted = 0
        self._leases: dict[int, float] = {}
        """By id: when it runs out."""
        self._ttls: dict[int, float] = {}
        self._next_lease = 0
        self._watches: list[Watch] = []
        self.expired = 0

    # -- data ----------------------------------------------------------------------------------

    def put(self, key: bytes, value: bytes, lease: int) -> int:
        if lease and lease not in self._leases:
            raise aetcd.ClientError("requested lease not found")
        self.revision += 1
        self.keys[key] = Key(key, value, self.revision, lease)
        self._tell(Event(EventKind.PUT, self.keys[key], self.revision))
        return self.revision

    def delete(self, key: bytes) -> int:
        if key in self.keys:
            self.revision += 1
            gone = self.keys.pop(key)
            self._tell(Event(EventKind.DELETE, gone, self.revision))
        return self.revision

    def transact(self, compare: list[Compare], success: list[Op]) -> tuple[bool, list[Response]]:
        for key, revision in compare:
            found = self.keys.get(key)
            if (0 if found is None else found.mod_revision) != revision:
                return False, []
        responses = []
        for op in success:
            revision = (
                self.delete(op.key) if op.value is None else self.put(op.key, op.value, op.lease)
            )
            responses.append(Response(PutResponse(Header(revision))))
        return True, responses

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        for watch in tuple(self._watches):
            watch.note(event)

    # -- leases --------------------------------------------------------------------------------

    def grant(self, ttl_s: float) -> Lease:
        self._next_lease += 1
        lease = self._next_lease
        self._ttls[lease] = ttl_s
        self._leases[lease] = 0.0
        self.renew(lease)
        return Lease(lease, int(ttl_s))

    def renew(self, lease: int) -> Lease:
        if lease not in self._leases:
            return Lease(lease, 0)
        ttl_s = self._ttls[lease]
        due = self.loop.now + ttl_s
        self._leases[lease] = due
        self.loop.call_at(due, self._expire, lease, due, context=self.loop.world.context)
        return Lease(lease, int(ttl_s))

    def revoke(self, lease: int) -> None:
        if self._leases.pop(lease, None) is None:
            return
        for key in [one.key for one in self.keys.values() if one.lease == lease]:
            self.delete(key)

    def _expire(self, lease: int, due: float) -> None:
        if self._leases.get(lease) == due and self.up and not self.paused:
            self.expired += 1
            self.revoke(lease)

    # -- faults --------------------------------------------------------------------------------

    def stop(self) -> None:
        self.up = False
        self._break_watches()

    def start(self, *, empty: bool = False) -> None:
        """Come back; leases get their whole time again. `empty`: with nothing left of the data."""
        self.up = True
        self.paused = False
        if empty:
            self.keys.clear()
            self.events.clear()
            self._leases.clear()
            self.revision = 1
            self.compacted = 0
        for lease in list(self._leases):
            self.renew(lease)

    def backup(self) -> Backup:
        """All there is now, for `restore`."""
        return Backup(dict(self.keys), dict(self._leases), self.revision)

    def restore(self, backup: Backup) -> None:
        """Come back, after `stop`, as it was then; nothing since has ever been."""
        self.keys = dict(backup.keys)
        self._leases = dict(backup.leases)
        self.revision = backup.revision
        self.events.clear()
        self.compacted = backup.revision
        self.start()

    def pause(self) -> None:
        self.paused = True

    def compact(self) -> None:
        """Forget all history, and have every watcher find that out."""
        self.compacted = self.revision
        self.events.clear()
        self._break_watches()

    def leases(self) -> list[int]:
        return sorted(self._leases)

    def _break_watches(self) -> None:
        for watch in tuple(self._watches):
            watch.end(aetcd.ClientError("the connection was closed"))

    def reaches(self, proc: Proc) -> bool:
        return proc not in self.unreachable

    # -- watches -------------------------------------------------------------------------------

    def watch(self, prefix: bytes, start_revision: int) -> Watch:
        if start_revision <= self.compacted:
            raise aetcd.RevisionCompactedError(self.compacted)
        watch = Watch(self, prefix)
        self._watches.append(watch)
        for event in self.events:
            if event.revision >= start_revision:
                watch.note(event)
        return watch

    def unwatch(self, watch: Watch) -> None:
        if watch in self._watches:
            self._watches.remove(watch)


class Watch:
    """One watcher's stream of events; `async for` reads it."""

    def __init__(self, server: SimEtcd, prefix: bytes) -> None:
        self._server = server
        self._prefix = prefix
        self._proc = CURRENT.get()
        self._arrived: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self._clear = 0.0
        self._line: deque[Event] = deque()
        self._silent_since: float | None = None

    def note(self, event: Event) -> None:
        if not event.kv.key.startswith(self._prefix):
            return
        server = self._server
        lag_s = server.rng.uniform(*LATENCY_S) + server.watch_lag_s * server.rng.random()
        self._clear = max(self._clear, server.loop.now + lag_s)
        self._line.append(event)
        self._deliver_at(self._clear)

    def _deliver_at(self, when: float) -> None:
        """One call a waiting event; each delivers the oldest, so they stay in order."""
        loop = self._server.loop
        loop.call_at(when, self._deliver, context=loop.world.context)

    def _deliver(self) -> None:
        server = self._server
        if server.reaches(self._proc) and not server.paused:
            self._silent_since = None
            self._proc.post(self._arrived.put_nowait, self._line.popleft())
            return
        # Nothing gets through: it is sent again until that works, or the keep-alive has given up.
        if self._silent_since is None:
            self._silent_since = server.loop.now
        if server.loop.now - self._silent_since > KEEPALIVE_S:
            self.end(aetcd.ConnectionFailedError())
            return
        self._deliver_at(server.loop.now + RETRY_S)

    def end(self, error: Exception) -> None:
        self._server.unwatch(self)
        self._proc.post(self._arrived.put_nowait, error)

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while True:
                event = await self._arrived.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self._server.unwatch(self)


class SimEtcdClient:
    """What the registry uses of aetcd's client. Every call takes a while, and may fail, with or
    without having been carried out."""

    transactions = Transactions()

    def __init__(self, server: SimEtcd) -> None:
        self._server = server
        self._proc = CURRENT.get()

    async def _pass(self) -> None:
        """One way over the network."""
        server = self._server
        await asyncio.sleep(server.rng.uniform(*LATENCY_S))
        if not server.up:
            raise aetcd.ConnectionFailedError
        if server.paused or not server.reaches(self._proc):
            await asyncio.sleep(CALL_TIMEOUT_S)
            raise aetcd.ConnectionTimeoutError

    async def get(self, key: bytes) -> Key | None:
        await self._pass()
        found = self._server.keys.get(key)
        await self._pass()
        return found

    async def get_prefix(self, prefix: bytes) -> Range:
        await self._pass()
        keys = [one for key, one in sorted(self._server.keys.items()) if key.startswith(prefix)]
        found = Range(Header(self._server.revision), keys)
        await self._pass()
        return found

    async def transaction(
        self, *, compare: list[Compare], success: list[Op], failure: list[Op]
    ) -> tuple[bool, list[Response]]:
        assert not failure, "the registry has no use for it"
        await self._pass()
        result = self._server.transact(compare, success)
        await self._pass()
        return result

    async def lease(self, ttl_s: float) -> Lease:
        await self._pass()
        lease = self._server.grant(ttl_s)
        await self._pass()
        return lease

    async def refresh_lease(self, lease: int) -> Lease:
        await self._pass()
        renewed = self._server.renew(lease)
        await self._pass()
        return renewed

    async def revoke_lease(self, lease: int) -> None:
        await self._pass()
        self._server.revoke(lease)
        await self._pass()

    async def watch_prefix(self, prefix: bytes, *, start_revision: int) -> Watch:
        await self._pass()
        return self._server.watch(prefix, start_revision)

    async def start_over(self) -> None:
        """There is no connection to make anew."""

    async def close(self) -> None:
        """There is no connection to close."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the simulated etcd client has no {name}")
