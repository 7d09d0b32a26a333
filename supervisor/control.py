"""The supervisor's Unix socket: its nodes' links, and calls from the command line."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from actors.runtime.errors import UNREADABLE
from actors.runtime.link import LINE_LIMIT, DrainOrder, Hello, Link, decode
from supervisor.calls import (
    HISTORY_LIMIT,
    Accepted,
    AddModel,
    Answer,
    AnyCall,
    Apply,
    Denied,
    Down,
    DrainChild,
    Events,
    GetMetrics,
    GetStatus,
    ListModels,
    MetricsText,
    Question,
    RemoveModel,
    Restart,
    Scale,
    SetLogLevel,
)
from supervisor.child import Child
from supervisor.events import Event
from supervisor.naming import Naming

EVENTS_LIMIT = 1000
"""Events that may wait for a slow reader; one more and it is disconnected."""
assert HISTORY_LIMIT < EVENTS_LIMIT, "what is remembered can be told to a new reader at once"

log = structlog.get_logger("control")
_call_decoder = msgspec.json.Decoder(AnyCall)


class _FirstLine(msgspec.Struct, frozen=True):
    note: str | None = None
    call: str | None = None


class Owner(Protocol):
    """What the socket needs of the supervisor behind it."""

    def find(self, hello: Hello) -> Child | None:
        """The child whose process is calling; None when it is none of ours."""
        ...

    async def status(self) -> Answer: ...

    async def metrics(self) -> str: ...

    def stop(self, *, force: bool, drain: bool) -> None: ...

    async def restart(self, name: str, *, rolling: bool) -> Answer: ...

    async def drain_child(self, child: str) -> Answer: ...

    def set_log_level(self, name: str, level: str) -> Answer: ...

    async def scale(self, name: str, replicas: int) -> Answer: ...

    async def apply(self, call: Apply) -> Answer: ...

    @property
    def naming(self) -> Naming: ...


class Subscription:
    """What one reader has still to be told. None at the end."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Event | None] = asyncio.Queue(EVENTS_LIMIT + 1)
        self.open = True

    def tell(self, event: Event) -> None:
        if not self.open:
            return
        if self._waiting.qsize() >= EVENTS_LIMIT:
            self.end()
        else:
            self._waiting.put_nowait(event)

    def end(self) -> None:
        if self.open:
            self.open = False
            self._waiting.put_nowait(None)

    async def next(self) -> Event | None:
        return await self._waiting.get()


class Control:
    """Listens from `start` to `close`."""

    def __init__(self, path: Path, owner: Owner) -> None:
        self._path = path
        self._owner = owner
        self._server: asyncio.Server | None = None
        self._handling: set[asyncio.Task[None]] = set()
        self._subscriptions: set[Subscription] = set()
        self._history: deque[Event] = deque(maxlen=HISTORY_LIMIT)

    async def start(self) -> None:
        """Listen. Whoever holds the namespace's lock owns the path: an old socket is removed."""
        self._path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(
            self._accept, str(self._path), limit=LINE_LIMIT
        )
        self._path.chmod(0o600)

    def tell(self, event: Event) -> None:
        """Pass an event on to everybody who listens, and remember it for who comes later."""
        self._history.append(event)
        for subscription in self._subscriptions:
            subscription.tell(event)

    @contextlib.contextmanager
    def subscribe(self, recent: int) -> Iterator[Subscription]:
        """All that is told from now on, after the last `recent` events; none is missing between."""
        subscription = Subscription()
        for event in list(self._history)[max(0, len(self._history) - recent) :]:
            subscription.tell(event)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    async def close(self) -> None:
        """Tell the listeners what is left, disconnect everybody, remove the socket."""
        if self._server is None:
            return
        self._server.close()
        self._path.unlink(missing_ok=True)
        for subscription in list(self._subscriptions):
            subscription.end()
        listeners = [task for task in self._handling if task.get_name() == "events"]
        if listeners:
            # A reader that does not read must not hold up our end.
            await asyncio.wait(listeners, timeout=1.0)
        for task in list(self._handling):
            task.cancel()
        await asyncio.gather(*self._handling, return_exceptions=True)
        await self._server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is handled by a task"
        self._handling.add(task)
        try:
            await self._handle(reader, writer)
        except ConnectionError:
            pass  # the other end has gone, as a reader of events may at any time
        except (ValueError, msgspec.MsgspecError) as error:
            # ValueError: a line longer than the limit.
            log.warning("connection_dropped", error=str(error))
        except asyncio.CancelledError:
            pass  # only `close` cancels, and this is the task's end anyway
        finally:
            self._handling.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line:
            return
        first = msgspec.json.decode(line, type=_FirstLine)
        if first.note is not None:
            hello = decode(line)
            child = self._owner.find(hello) if isinstance(hello, Hello) else None
            if child is None or not isinstance(hello, Hello):
                log.warning("stranger_refused", said=first.note)
                # A node of this namespace that an earlier supervisor had no time to write down.
                # To be sent away counts for nothing with it; it would call again and again.
                Link(reader, writer).say(DrainOrder())
                return
            await _listen(child, Link(reader, writer), hello)
            return
        try:
            call = _call_decoder.decode(line)
        except msgspec.ValidationError as error:
            await _say(writer, Denied(why=f"not understood: {error}"))
            return
        await self._answer(call, writer)

    async def _answer(self, call: AnyCall, writer: asyncio.StreamWriter) -> None:
        match call:
            case Down(force=force, drain=drain):
                await _say(writer, Accepted())
                self._owner.stop(force=force, drain=drain)
            case Events(recent=recent, follow=follow):
                await self._tell_events(writer, recent, follow=follow)
            case _:
                try:
                    answer = await self._ask(call)
                except Exception as error:
                    # Whatever it was: who asked must not take it for the supervisor's end.
                    log.exception("call_failed", call=type(call).__name__)
                    answer = Denied(why=f"it failed: {type(error).__name__}: {error}")
                await _say(writer, answer)

    async def _ask(self, call: Question) -> Answer:
        owner = self._owner
        match call:
            case GetStatus():
                return await owner.status()
            case GetMetrics():
                return MetricsText(text=await owner.metrics())
            case Restart(id=name, rolling=rolling):
                return await owner.restart(name, rolling=rolling)
            case DrainChild(id=child):
                return await owner.drain_child(child)
            case SetLogLevel(id=name, level=level):
                return owner.set_log_level(name, level)
            case Scale(name=name, replicas=replicas):
                return await owner.scale(name, replicas)
            case Apply():
                return await owner.apply(call)
            case ListModels() | AddModel() | RemoveModel():
                return await owner.naming.answer(call)

    async def _tell_events(
        self, writer: asyncio.StreamWriter, recent: int, *, follow: bool
    ) -> None:
        task = asyncio.current_task()
        assert task is not None, "a connection is handled by a task"
        task.set_name("events")
        with self.subscribe(recent) as subscription:
            if not follow:
                subscription.end()
            await _say(writer, Accepted())
            while (event := await subscription.next()) is not None:
                await _say(writer, event)


async def _listen(child: Child, link: Link, hello: Hello) -> None:
    child.linked(link, hello)
    try:
        while True:
            try:
                note = await link.hear()
            except UNREADABLE as error:
                # A node of another release says something new. To hang up would leave it without
                # a heartbeat, and so to be killed.
                log.warning("note_unreadable", child=child.id, error=str(error))
                continue
            if note is None:
                return
            child.hear(note)
    finally:
        child.unlinked(link)


async def _say(writer: asyncio.StreamWriter, what: msgspec.Struct) -> None:
    writer.write(msgspec.json.encode(what) + b"\n")
    await writer.drain()
