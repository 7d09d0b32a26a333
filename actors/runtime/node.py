"""A node: one process's worth of actors, and their way to everyone else's.

Delivery is a queue put when both actors live here, and a frame over the transport when they do
not; an actor cannot tell the difference, except by the time it takes.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from actors.runtime import logs
from actors.runtime.actor import Actor, Regained, Returned
from actors.runtime.address import Address
from actors.runtime.cell import Answer, Cell
from actors.runtime.clock import Clock, LoopClock
from actors.runtime.errors import (
    UNREADABLE,
    ActorError,
    ActorFailed,
    AskTimeout,
    NameLost,
    NoSuchActor,
    ProtocolError,
    Refused,
)
from actors.runtime.hosts import HostBeat
from actors.runtime.message import (
    Fault,
    Message,
    Ok,
    decode_answer,
    encode,
    split,
)
from actors.runtime.metrics.registry import Metrics
from actors.runtime.metrics.vitals import Vitals
from actors.runtime.pids import process_started
from actors.runtime.presence import Presence
from actors.runtime.registry.base import (
    EMPTY_META,
    Entry,
    Records,
    Registry,
    State,
)
from actors.runtime.transport.base import Bounce, Subscription, Transport

if TYPE_CHECKING:
    from actors.runtime.tracing.tracer import Tracer

T = TypeVar("T")

DRAIN_NOTICE_S = 0.2
"""From saying that no new work is wanted to believing that none will come. Nothing tells when the
last watcher has heard; measured with eight askers, 24 of 28 000 asks met an actor that had left
without it, none with it."""


class Hosted(msgspec.Struct, frozen=True, kw_only=True):
    """One actor to host."""

    actor: type[Actor]
    role: str
    instance: int = 0
    options: Any = None
    """An instance of the actor's Options; None for the defaults."""
    above: int = 0
    """The incarnation of the last life known to be over."""


class Departed(Message, frozen=True):
    """Broadcast by whoever saw a life end first, usually a supervisor."""

    address: Address
    reason: str


class Node:
    """Hosts actors. `start`, then `wait` until one fails or `stop` is called."""

    def __init__(
        self,
        name: str,
        namespace: str,
        transport: Transport,
        registry: Registry,
        *,
        clock: Clock | None = None,
        base_dir: Path | None = None,
        host: str | None = None,
        host_silence_s: float | None = None,
    ) -> None:
        """`host`: what the registry calls this machine; None: its host name. `host_silence_s`:
        after what silence the actors of another host are no longer counted on; None: only when
        they have left the registry."""
        self.name = name
        self._host = host or socket.gethostname()
        self.namespace = namespace
        self.transport = transport
        self.registry = registry
        self.clock: Clock = clock or LoopClock()
        self.base_dir = base_dir or Path.cwd()
        self._presence = Presence(
            self.clock,
            self._inform,
            host=self._host,
            host_silence_s=host_silence_s,
            beat=self._beat,
        )
        self.directory = self._presence.directory
        self.records: Records = {}
        """What operators have written down; another mapping after every change."""
        self.metrics = Metrics()
        self.vitals = Vitals(self)
        self.verbose = False
        """Whether anybody here is heard at the level `debug`: what becomes of each request is said
        only then, as saying it to nobody costs several microseconds."""
        self.tracer: Tracer | None = None
        """Set before anybody is hosted, where requests are traced."""
        self._name_log()
        self._cells: dict[str, Cell] = {}
        self._rehearsed: list[Actor] = []
        """Loaded, and without a name so far."""
        self._subscriptions: list[Subscription] = []
        self._failure: asyncio.Future[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._stopped = False

    # -- life ----------------------------------------------------------------------------------

    async def start(self, hosted: Sequence[Hosted] = ()) -> None:
        """Connect, then bring the actors up in order, each ready before the next begins.

        Raises PlaneUnavailable, NameTaken, or what an actor's `starting` raised.
        """
        await self.connect()
        for item in hosted:
            await self.host(item)

    async def connect(self) -> None:
        """Connect to NATS and etcd. Raises PlaneUnavailable."""
        self._failure = asyncio.get_running_loop().create_future()
        self.transport.on_regained = self._on_regained
        await self.transport.start()
        subject = departures(self.namespace)
        self._subscriptions.append(await self.transport.subscribe(subject, self._on_departed))
        self.registry.on_records = self._on_records
        self.registry.on_lost = self._on_lost
        await self.registry.start(self._presence.observe)
        if self._presence.hosts is not None:
            subject = host_beats(self.namespace)
            self._subscriptions.append(await self.transport.subscribe(subject, self._on_beat))
            self._presence.hosts.open()

    async def host(self, item: Hosted) -> Actor:
        """Bring one actor up; return it when it is ready."""
        actor = self._construct(item)
        cell = await self._claim(actor, item)
        await actor.starting()
        cell.start()
        await self._announce(cell, State.READY)
        self.log.info("actor_ready", actor=str(cell.entry.address))
        return actor

    async def rehearse(self, item: Hosted) -> Actor:
        """Let an actor do its `starting` without a name: an understudy, for `take_over` later."""
        actor = self._construct(item)
        self._rehearsed.append(actor)
        await actor.starting()
        return actor

    async def take_over(self, actor: Actor, item: Hosted) -> None:
        """Give a rehearsed actor the name that `item` says; return when it is ready. Raises
        NameTaken."""
        actor.instance = item.instance
        cell = await self._claim(actor, item)
        self._rehearsed.remove(actor)
        cell.start()
        await self._announce(cell, State.READY)
        self.log.info("actor_ready", actor=str(cell.entry.address), stood_by=True)

    def _construct(self, item: Hosted) -> Actor:
        options = item.actor.Options() if item.options is None else item.options
        return item.actor(self, item.role, item.instance, options)

    async def _claim(self, actor: Actor, item: Hosted) -> Cell:
        """Take the actor's name, and listen under it."""
        entry = await self.registry.claim(
            Entry(
                meta=_meta(actor),
                role=item.role,
                instance=item.instance,
                node=self.name,
                host=self._host,
                pid=os.getpid(),
                pid_started=process_started(os.getpid()),
            ),
            above=item.above,
        )
        actor.address = entry.address
        cell = Cell(actor, entry, partial(self.fail, actor))
        self._cells[entry.name] = cell
        subject = self._subject(entry.role, entry.instance)
        self._subscriptions.append(
            await self.transport.subscribe(subject, partial(self._on_frame, cell))
        )
        return cell

    async def wait(self) -> None:
        """Return after `stop`; raise ActorFailed when an actor failed, NameLost when a name of an
        actor here was claimed by a successor."""
        assert self._failure is not None, "start comes first"
        await asyncio.shield(self._failure)

    async def drain(self) -> None:
        """Say that no new work is wanted, and let every actor finish what it has."""
        for cell in self._cells.values():
            await self._announce(cell, State.DRAINING)
        # Others learn of it by their watches, and what they sent before is still on its way: an
        # actor with nothing in hand must not leave under it.
        await asyncio.sleep(DRAIN_NOTICE_S)
        await asyncio.gather(*(cell.actor.draining() for cell in self._cells.values()))

    async def stop(self) -> None:
        """End the actors in reverse order, leave the registry, disconnect. Safe to call twice."""
        if self._stopped:
            return
        self._stopped = True
        for cell in reversed(self._cells.values()):
            await self.registry.withdraw(cell.entry)
            try:
                await cell.stop()
            except Exception:
                # One actor that cannot give back what it holds must not keep the others from it.
                self.log.exception("stopping_failed", actor=cell.entry.name)
        for actor in reversed(self._rehearsed):
            await actor.cancel_tasks()
            try:
                await actor.stopping()
            except Exception:
                self.log.exception("stopping_failed", actor=actor.role)
        await asyncio.gather(*self._writes, return_exceptions=True)
        for subscription in self._subscriptions:
            await subscription.cancel()
        await self.registry.close()
        await self._presence.close()
        await self.transport.close()
        if self._failure is not None and not self._failure.done():
            self._failure.set_result(None)

    def fail(self, actor: Actor, error: BaseException) -> None:
        """An actor cannot go on: so the node cannot."""
        self._end(ActorFailed(actor.address.name, error))

    def _on_lost(self, entry: Entry, successor: int) -> None:
        """Nobody may act under a name that another has: not even to finish what is in hand."""
        self._end(NameLost(entry.name, entry.incarnation, successor))

    def _end(self, error: ActorError) -> None:
        if self._failure is not None and not self._failure.done() and not self._stopped:
            self._failure.set_exception(error)
            # Seen already: a node that fails while it starts has nobody in `wait` yet.
            self._failure.exception()

    def rename(self, name: str) -> None:
        """Go on as another node of the namespace; those it hosts from now on are that one's."""
        self.name = name
        self._name_log()
        if self.tracer is not None:
            self.tracer.rename(name)

    def _name_log(self) -> None:
        self.log = self._presence.log = logs.get_logger("actor").bind(node=self.name)

    @property
    def cells(self) -> list[Cell]:
        return list(self._cells.values())

    # -- sending -------------------------------------------------------------------------------

    def tell(
        self, target: Address | str, message: Message, *, sender: Actor | None = None
    ) -> Address:
        """See `Actor.tell`."""
        address, cell = self._resolve(target)
        wants_it_back = sender is not None and self._handles_returned(sender)
        if cell is not None:
            refuse: Answer | None = None
            if wants_it_back and sender is not None:
                refuse = partial(self._refused_here, sender, message, address)
            fault = cell.offer(message, address.incarnation, refuse=refuse)
            if fault is not None and refuse is not None:
                refuse(fault)
            return address
        bounce: Bounce | None = None
        if wants_it_back and sender is not None:
            bounce = partial(self._bounced, sender, message, address)
        subject = self._subject(address.role, address.instance)
        self.transport.publish(subject, encode(message, address.incarnation), bounce)
        return address

    async def ask(
        self, target: Address | str, message: Message, *, reply: type[T], timeout_s: float
    ) -> T:
        """See `Actor.ask`."""
        address, cell = self._resolve(target)
        if cell is not None:
            return await self._ask_here(cell, address, message, reply, timeout_s)
        subject = self._subject(address.role, address.instance)
        frame = encode(message, address.incarnation, wants_answer=True)
        try:
            answer = decode_answer(await self.transport.request(subject, frame, timeout_s))
        except (NoSuchActor, Refused) as error:
            raise type(error)(address, error.why) from None
        except AskTimeout:
            raise AskTimeout(address, timeout_s) from None
        if isinstance(answer, Fault):
            raise answer.to_error(address)
        try:
            return msgspec.msgpack.decode(answer.value, type=reply)
        except UNREADABLE as error:
            raise ProtocolError(f"{address}: an answer of another type: {error}") from error

    async def _ask_here(
        self, cell: Cell, address: Address, message: Message, reply: type[T], timeout_s: float
    ) -> T:
        answered: asyncio.Future[object] = asyncio.get_running_loop().create_future()

        def answer(result: object) -> None:
            if not answered.done():
                answered.set_result(result)

        fault = cell.offer(message, address.incarnation, answer=answer, refuse=answer)
        if fault is not None:
            raise fault.to_error(address)
        try:
            async with asyncio.timeout(timeout_s):
                result = await answered
        except TimeoutError:
            raise AskTimeout(address, timeout_s) from None
        if isinstance(result, Fault):
            raise result.to_error(address)
        try:
            return msgspec.convert(result, type=reply)
        except UNREADABLE as error:
            raise ProtocolError(f"{address}: an answer of another type: {error}") from error

    def _resolve(self, target: Address | str) -> tuple[Address, Cell | None]:
        if isinstance(target, str):
            return self._resolve_role(target)
        cell = self._cells.get(target.name)
        if cell is not None and target.incarnation <= cell.entry.incarnation:
            return target, cell
        if target.incarnation == 0:
            entry = self.directory.find(target.name)
            if entry is None:
                raise NoSuchActor(target)
            return entry.address, None
        if self.directory.has_ended(target):
            raise NoSuchActor(target, "that life is over")
        return target, None

    def _resolve_role(self, role: str) -> tuple[Address, Cell | None]:
        for cell in self._cells.values():
            if cell.entry.role == role and cell.entry.state is State.READY:
                return cell.entry.address, cell
        entry = self.directory.pick(role)
        if entry is None:
            raise NoSuchActor(role, "no instance is ready")
        return entry.address, None

    def _handles_returned(self, sender: Actor) -> bool:
        cell = self._cells.get(sender.address.name)
        return cell is not None and cell.handles(Returned)

    def _refused_here(
        self, sender: Actor, message: Message, address: Address, fault: object
    ) -> None:
        assert isinstance(fault, Fault)
        self._return(sender, message, address, fault.text)

    def _bounced(
        self, sender: Actor, message: Message, address: Address, frame: bytes | None
    ) -> None:
        reason = "nobody listens there"
        if frame is not None:
            try:
                answer = decode_answer(frame)
            except ProtocolError as error:
                reason = str(error)
            else:
                if isinstance(answer, Ok):
                    return
                reason = answer.text
        self._return(sender, message, address, reason)

    def _return(self, sender: Actor, message: Message, address: Address, reason: str) -> None:
        cell = self._cells.get(sender.address.name)
        if cell is not None:
            cell.offer_urgent(Returned(message, address, reason))

    # -- receiving -----------------------------------------------------------------------------

    def _on_frame(self, cell: Cell, frame: bytes, reply: str) -> None:
        cell.offer_frame(frame, partial(self._answer, reply) if reply else None)

    def _answer(self, reply: str, result: object) -> None:
        if not isinstance(result, Fault):
            result = Ok(msgspec.Raw(msgspec.msgpack.encode(result)))
        frame = encode(result)
        limit = self.transport.frame_limit_bytes
        if len(frame) > limit:
            text = f"the answer of {len(frame)} bytes is over the transport's limit of {limit}"
            frame = encode(Fault("raised", text, "AnswerTooLarge"))
        self.transport.publish(reply, frame)

    def _on_departed(self, frame: bytes, _reply: str) -> None:
        try:
            departed = msgspec.msgpack.decode(split(frame).body, type=Departed)
        except (ProtocolError, *UNREADABLE) as error:
            self.log.warning("departure_unreadable", error=str(error))
            return
        self._presence.ended(departed.address, departed.reason)

    @property
    def silent_hosts(self) -> frozenset[str]:
        """The other hosts that nothing is heard of."""
        return self._presence.silent_hosts

    def _beat(self) -> None:
        self.transport.publish(host_beats(self.namespace), encode(HostBeat(self._host)))

    def _on_beat(self, frame: bytes, _reply: str) -> None:
        try:
            beat = msgspec.msgpack.decode(split(frame).body, type=HostBeat)
        except (ProtocolError, *UNREADABLE) as error:
            # Of another release: its host is judged by the registry alone.
            self.log.debug("host_beat_unreadable", error=str(error))
            return
        assert self._presence.hosts is not None, "nobody else subscribes"
        self._presence.hosts.heard(beat.host)

    def _on_regained(self) -> None:
        for name in self._cells:
            self._inform(name, Regained())

    # -- who is there --------------------------------------------------------------------------

    def monitor(self, actor: Actor, address: Address) -> None:
        """See `Actor.monitor`."""
        self._presence.monitor(actor.address.name, address)

    def demonitor(self, actor: Actor, address: Address) -> None:
        """See `Actor.demonitor`."""
        self._presence.demonitor(actor.address.name, address)

    def watch(self, actor: Actor, role: str) -> None:
        """See `Actor.watch`."""
        self._presence.watch(actor.address.name, role)

    def waiting(self, actor: Actor) -> int:
        """See `Actor.waiting`."""
        cell = self._cells.get(actor.address.name)
        return 0 if cell is None else len(cell.mailbox)

    def publish_meta(self, actor: Actor) -> None:
        """See `Actor.publish_meta`."""
        cell = self._cells[actor.address.name]
        task = asyncio.get_running_loop().create_task(self._announce(cell, cell.entry.state))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)

    async def _announce(self, cell: Cell, state: State) -> None:
        cell.entry = msgspec.structs.replace(cell.entry, state=state, meta=_meta(cell.actor))
        await self.registry.update(cell.entry)

    def _on_records(self, records: Records) -> None:
        self.records = records

    def _inform(self, name: str, message: Message) -> None:
        cell = self._cells.get(name)
        if cell is not None:
            cell.offer_urgent(message)

    def _subject(self, role: str, instance: int) -> str:
        return mailbox_subject(self.namespace, role, instance)


def _meta(actor: Actor) -> msgspec.Raw:
    meta = actor.meta()
    return EMPTY_META if meta is None else msgspec.Raw(msgspec.json.encode(meta))


def mailbox_subject(namespace: str, role: str, instance: int) -> str:
    """The NATS subject of a mailbox."""
    return f"{namespace}.a.{role}.{instance}"


def host_beats(namespace: str) -> str:
    """The NATS subject on which every host lets itself be heard."""
    return f"{namespace}.hosts"


def departures(namespace: str) -> str:
    """The NATS subject on which `Departed` is broadcast."""
    return f"{namespace}.departed"
