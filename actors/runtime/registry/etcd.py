"""The registry in etcd v3.

`/<namespace>/mailboxes/<role>/<instance>` holds an entry as JSON, under one lease a node;
`/<namespace>/records/<key>` holds a record, under none. While connected, one task renews the lease
and one follows both prefixes. When either task fails, both are dropped and the registry connects
again: the lease is renewed or granted anew, our entries are written again, everything is listed.

`/<namespace>/lives/<role>/<instance>` holds the last incarnation of the name, under no lease: it is
still there when nobody is, and decides who is whose successor.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, NamedTuple

import aetcd
import grpc
import msgspec
import structlog
from aetcd.rtypes import EventKind

from actors.runtime import tasks
from actors.runtime.clock import Clock, LoopClock
from actors.runtime.errors import UNREADABLE, NameTaken, PlaneRefused, PlaneUnavailable
from actors.runtime.pids import is_alive
from actors.runtime.registry.base import (
    Deleted,
    Entry,
    Health,
    Listed,
    Observer,
    Put,
    Registry,
)
from actors.runtime.registry.etcd_client import CALL_TIMEOUT_S, EtcdClient
from actors.runtime.transport.nats import TlsFiles

LEASE_TTL_S = 10
RETRY_FIRST_S = 0.1
RETRY_MAX_S = 2.0
FIRST_DAY_S = 1_767_225_600
"""2026-01-01 UTC: incarnations are counted from there, which keeps them short."""
TICKS_PER_S = 10
"""Of the clock that no incarnation is below. No process is started, claims a name, dies and has a
successor within one, with a loss of etcd's data in between."""
WRONG_LOGIN = "authentication failed"
"""etcd's words for a user or password that it does not know."""
_OUTAGE = (aetcd.ClientError, grpc.aio.AioRpcError, OSError, TimeoutError)

log = structlog.get_logger("registry")


class EtcdSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach etcd, and as whom."""

    urls: tuple[str, ...]
    """`http://host:port`, or `https://` for TLS; one or several members of one cluster."""
    user: str | None = None
    password: str | None = None
    tls: TlsFiles | None = None
    connect_timeout_s: float = 10.0
    lease_ttl_s: int = LEASE_TTL_S


class _Place(NamedTuple):
    """What etcd has of a name."""

    compare: tuple[Any, ...]
    """Conditions of a transaction: that all of it is unchanged."""
    holder: Entry | None
    last: int
    """The last incarnation it knows of; 0 for none."""


class EtcdRegistry(Registry):
    """See the module."""

    def __init__(
        self,
        settings: EtcdSettings,
        namespace: str,
        *,
        clock: Clock | None = None,
        host: str | None = None,
    ) -> None:
        """`host`: what this machine is called in entries; None: by its host name."""
        self._settings = settings
        self._host = host or socket.gethostname()
        self._clock = clock or LoopClock()
        self._where = ", ".join(settings.urls)
        self._root = f"/{namespace}/".encode()
        self._prefix = self._root + b"mailboxes/"
        self._recorded = self._root + b"records/"
        self._lives = self._root + b"lives/"
        self._client = EtcdClient(settings)
        self._observer: Observer | None = None
        self._lease_id = 0
        self._mine: dict[str, Entry] = {}
        self._records: dict[str, bytes] = {}
        self._revision = 0
        self._health: Health = "lost"
        self._trouble = "no answer"
        """Why the last attempt to connect failed."""
        self._run: asyncio.Task[None] | None = None
        self._parts: tuple[asyncio.Task[None], ...] = ()

    async def start(self, observer: Observer) -> None:
        self._observer = observer
        try:
            await tasks.within(self._settings.connect_timeout_s, self._connect_again())
        except TimeoutError as error:
            await self._client.close()
            refused = WRONG_LOGIN in self._trouble
            raise (PlaneRefused if refused else PlaneUnavailable)(
                "etcd", self._where, self._trouble
            ) from error
        self._run = asyncio.create_task(self._stay_connected(), name="etcd-registry")

    async def claim(self, entry: Entry, *, above: int = 0) -> Entry:
        try:
            claimed = await self._take_name(entry, above)
        except _OUTAGE as error:
            raise PlaneUnavailable("etcd", self._where, _say(error)) from error
        self._mine[entry.name] = claimed
        return claimed

    async def update(self, entry: Entry) -> None:
        if entry.name not in self._mine:
            return
        self._mine[entry.name] = entry
        try:
            await self._write(entry.name)
        except _OUTAGE as error:
            # Connecting again writes all of `_mine`.
            log.warning("registry_update_delayed", actor=entry.name, error=_say(error))

    async def withdraw(self, entry: Entry) -> None:
        self._mine.pop(entry.name, None)
        if self._health != "connected":
            return
        key = self._key(entry.name)
        transactions = self._client.transactions
        with contextlib.suppress(*_OUTAGE):
            found = await self._client.get(key)
            holder = None if found is None else _decode(found.value)
            # Only ours: a successor may already have the name.
            if holder is not None and holder.incarnation == entry.incarnation:
                await self._client.transaction(
                    compare=[transactions.mod(key) == found.mod_revision],
                    success=[transactions.delete(key)],
                    failure=[],
                )

    async def record(self, key: str, value: bytes, *, replace: bool = False) -> bool:
        where, transactions = self._recorded + key.encode(), self._client.transactions
        try:
            succeeded, _ = await self._client.transaction(
                compare=[] if replace else [transactions.mod(where) == 0],
                success=[transactions.put(where, value, None)],
                failure=[],
            )
        except _OUTAGE as error:
            raise PlaneUnavailable("etcd", self._where, _say(error)) from error
        return bool(succeeded)

    async def erase(self, key: str) -> bool:
        try:
            return await self._client.delete(self._recorded + key.encode()) is not None
        except _OUTAGE as error:
            raise PlaneUnavailable("etcd", self._where, _say(error)) from error

    async def close(self) -> None:
        if self._run is not None:
            await tasks.end(self._run, *self._parts)
            self._run = None
        if self._lease_id and self._health == "connected":
            with contextlib.suppress(*_OUTAGE):
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await self._client.revoke_lease(self._lease_id)
        await self._client.close()

    @property
    def health(self) -> Health:
        return self._health

    async def _stay_connected(self) -> None:
        while True:
            self._parts = (
                asyncio.create_task(self._renew_lease(), name="etcd-lease"),
                asyncio.create_task(self._follow(), name="etcd-watch"),
            )
            try:
                await asyncio.wait(self._parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await tasks.end(*self._parts)
            for part in self._parts:
                error = None if part.cancelled() else part.exception()
                if isinstance(error, _OUTAGE):
                    log.warning("registry_lost", error=_say(error))
                elif error is not None:
                    # A defect, here or in the client; to go on without a lease would be worse.
                    log.error("registry_broke", exc_info=error)
            self._health = "lost"
            await self._connect_again()
            log.info("registry_back")

    async def _connect_again(self) -> None:
        """Try until it works."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                await self._connect()
            except _OUTAGE as error:
                self._trouble = _say(error)
                log.debug("registry_unreachable", error=self._trouble)
                await self._client.start_over()
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, RETRY_MAX_S)
            else:
                return

    async def _connect(self) -> None:
        if not (self._lease_id and await self._lease_is_alive()):
            lease = await self._client.lease(self._settings.lease_ttl_s)
            self._lease_id = lease.id
        for name in list(self._mine):
            await self._write(name)
        found = await self._client.get_prefix(self._root)
        self._revision = found.header.revision
        self._health = "connected"
        self._records = {
            kv.key.removeprefix(self._recorded).decode(): kv.value
            for kv in found.kvs
            if kv.key.startswith(self._recorded)
        }
        self._tell_records()
        entries = (_decode(kv.value) for kv in found.kvs if kv.key.startswith(self._prefix))
        self._observe(Listed(tuple(entry for entry in entries if entry is not None)))

    async def _renew_lease(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_ttl_s / 3)
            if not await self._lease_is_alive():
                # Revoked, or expired while this process was stopped.
                raise aetcd.ClientError("the lease is gone")

    async def _lease_is_alive(self) -> bool:
        reply = await self._client.refresh_lease(self._lease_id)
        return reply is not None and reply.TTL > 0

    async def _follow(self) -> None:
        """Report every change after the last list."""
        watch = await self._client.watch_prefix(self._root, start_revision=self._revision + 1)
        async for event in watch:
            value = None if event.kind == EventKind.DELETE else event.kv.value
            if event.kv.key.startswith(self._prefix):
                await self._follow_entry(event.kv.key.removeprefix(self._prefix).decode(), value)
            elif event.kv.key.startswith(self._recorded):
                self._follow_record(event.kv.key.removeprefix(self._recorded).decode(), value)
        raise aetcd.ClientError("the watch ended")

    async def _follow_entry(self, name: str, value: bytes | None) -> None:
        if value is not None:
            entry = _decode(value)
            if entry is not None:
                self._give_up_if_replaced(name, entry.incarnation)
                self._observe(Put(entry))
        elif name in self._mine:
            # Somebody deleted what still lives: say so again.
            await self._write(name)
        else:
            self._observe(Deleted(name))

    def _follow_record(self, key: str, value: bytes | None) -> None:
        if value is None:
            self._records.pop(key, None)
        else:
            self._records[key] = value
        self._tell_records()

    def _tell_records(self) -> None:
        if self.on_records is not None:
            self.on_records(dict(self._records))

    async def _take_name(self, entry: Entry, above: int) -> Entry:
        """Put the key unless a live stranger holds it; return the entry with its incarnation."""
        while True:
            place = await self._look(entry.name)
            holder = place.holder
            if holder is not None and not _is_dead(holder, above, self._host):
                raise NameTaken(entry.name, f"{holder.node} (pid {holder.pid} on {holder.host})")
            # Each of the three may know of a life that the others do not. The clock stands for
            # those that only an etcd knew that has lost its data since.
            after = 1 + max(above, place.last, 0 if holder is None else holder.incarnation)
            claimed = msgspec.structs.replace(entry, incarnation=max(after, self._ticks()))
            if await self._put_unless_changed(place, claimed):
                return claimed

    async def _write(self, name: str) -> None:
        """Put our entry as it is by then, unless a later life has had the name: a node that was
        stopped for long must not write over its successor, nor come back after it."""
        while name in self._mine:
            place = await self._look(name)
            if place.holder is not None:
                self._give_up_if_replaced(name, place.holder.incarnation)
            self._give_up_if_replaced(name, place.last)
            entry = self._mine.get(name)
            if entry is None or await self._put_unless_changed(place, entry):
                return

    async def _look(self, name: str) -> _Place:
        key, lives = self._key(name), self._lives + name.encode()
        found, last = await self._client.get(key), await self._client.get(lives)
        return _Place(
            compare=tuple(
                self._client.transactions.mod(one) == (0 if kv is None else kv.mod_revision)
                for one, kv in ((key, found), (lives, last))
            ),
            holder=None if found is None else _decode(found.value),
            last=0 if last is None else _number(last.value),
        )

    async def _put_unless_changed(self, place: _Place, entry: Entry) -> bool:
        """Put under our lease; False when somebody was faster."""
        put = self._client.transactions.put
        puts = [put(self._key(entry.name), msgspec.json.encode(entry), self._lease_id)]
        if place.last < entry.incarnation:
            puts.append(put(self._lives + entry.name.encode(), b"%d" % entry.incarnation, None))
        succeeded, _ = await self._client.transaction(
            compare=list(place.compare), success=puts, failure=[]
        )
        return bool(succeeded)

    def _ticks(self) -> int:
        """The time, as the least incarnation that a life may have which begins now."""
        return int((self._clock.wall() - FIRST_DAY_S) * TICKS_PER_S)

    def _give_up_if_replaced(self, name: str, incarnation: int) -> None:
        mine = self._mine.get(name)
        if mine is not None and incarnation > mine.incarnation:
            log.warning("registry_name_lost", actor=name, to=incarnation)
            del self._mine[name]
            if self.on_lost is not None:
                self.on_lost(mine, incarnation)

    def _key(self, name: str) -> bytes:
        return self._prefix + name.encode()

    def _observe(self, observation: Put | Deleted | Listed) -> None:
        assert self._observer is not None
        self._observer(observation)


def _is_dead(holder: Entry, above: int, host: str) -> bool:
    # A claim that is not finished has no incarnation yet; it is no life that could be over.
    if 0 < holder.incarnation <= above:
        return True
    return holder.host == host and not is_alive(holder.pid, holder.pid_started)


def _decode(value: bytes) -> Entry | None:
    try:
        return msgspec.json.decode(value, type=Entry)
    except UNREADABLE as error:
        log.warning("registry_entry_unreadable", error=str(error), value=value[:200])
        return None


def _number(value: bytes) -> int:
    try:
        return int(value)
    except ValueError:
        log.warning("registry_life_unreadable", value=value[:200])
        return 0


def _say(error: BaseException) -> str:
    # aetcd's errors hide gRPC's, which alone say what is wrong with a certificate.
    cause = error.__cause__ if isinstance(error.__cause__, grpc.aio.AioRpcError) else error
    if isinstance(cause, grpc.aio.AioRpcError):
        return cause.details() or str(cause.code())
    return str(error) or type(error).__name__
