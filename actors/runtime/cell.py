"""One hosted actor: its mailbox, the loop that empties it, and its answers."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from actors.runtime import logs, tasks
from actors.runtime.actor import Actor, Down, Joined, Regained, Returned, handlers_of
from actors.runtime.errors import UNREADABLE, Declined, ProtocolError, WireVersionError
from actors.runtime.mailbox import Mailbox
from actors.runtime.message import Fault, Frame, Message, split

if TYPE_CHECKING:
    from actors.runtime.registry.base import Entry

LOCAL_ONLY: frozenset[type[Message]] = frozenset({Down, Joined, Regained, Returned})
"""Messages only the runtime sends; a frame that claims to be one is malformed."""
FAIRNESS = 64
"""Messages handled in one go before other tasks of the loop get their turn."""
FAIRNESS_BYTES = 32_768
"""And as much of what came from other processes: one message may be an engine's step with hundreds
of tokens. Not much less, as tokens of one stream that are handled in one go leave together."""

Answer = Callable[[object], None]
"""Takes what the handler returned, or a Fault."""


log = logs.get_logger("actor")


class Envelope(NamedTuple):
    message: Message
    answer: Answer | None
    """Takes the outcome: set for an ask."""
    refuse: Answer | None
    """Takes the Fault when the message is not handled after all."""
    size: int = 0
    """Bytes it had on its way from another process."""


def decoder_for(kinds: Iterable[type[Message]]) -> msgspec.msgpack.Decoder[Message] | None:
    """What reads the messages of these types off the wire; None when none of them comes that way.
    The first one made for a type reads its annotations, which takes milliseconds."""
    remote = tuple(kind for kind in kinds if kind not in LOCAL_ONLY)
    return msgspec.msgpack.Decoder(reduce(or_, remote)) if remote else None


class Cell:
    """Hosts one actor. `failed` is called with the exception that ends it."""

    def __init__(self, actor: Actor, entry: Entry, failed: Callable[[Exception], None]) -> None:
        self.actor = actor
        self.entry = entry
        self.mailbox: Mailbox[Envelope] = Mailbox(actor.mailbox_limit)
        self.refusals: Counter[str] = Counter()
        self._failed = failed
        self._methods: dict[type[Message], tuple[Callable[[Message], Any], bool]] = {}
        for item in handlers_of(type(actor)):
            for message_type in item.types:
                self._methods[message_type] = (getattr(actor, item.name), item.concurrent)
        self._decoder = decoder_for(self._methods)
        self._loop_task: asyncio.Task[None] | None = None
        self._concurrent: set[asyncio.Task[None]] = set()
        self._open = True

    def handles(self, message_type: type[Message]) -> bool:
        return message_type in self._methods

    def start(self) -> None:
        name = f"{self.entry.name}:mailbox"
        self._loop_task = asyncio.get_running_loop().create_task(self._run(), name=name)

    # -- receiving -----------------------------------------------------------------------------

    def offer(
        self,
        message: Message,
        incarnation: int,
        *,
        answer: Answer | None = None,
        refuse: Answer | None = None,
    ) -> Fault | None:
        """Queue a message; a Fault says why not."""
        fault = self._objection(incarnation)
        if fault is None and type(message) not in self._methods:
            fault = self._refuse("unhandled", f"takes no {type(message).__name__}")
        if fault is None and not self.mailbox.offer(Envelope(message, answer, refuse)):
            fault = self._refuse("full", f"its mailbox is full ({self.mailbox.statistics().limit})")
        return fault

    def offer_frame(self, frame: bytes, answer_to: Callable[[object], None] | None) -> None:
        """Queue a frame from the transport, or answer why not."""
        fault: Fault | None
        try:
            parts = split(frame)
        except WireVersionError as error:
            self._warn_of_version(str(error))
            fault = self._refuse("version", str(error))
        except ProtocolError as error:
            fault = self._refuse("malformed", str(error))
        else:
            if parts.incarnation > self.entry.incarnation:
                # Meant for our successor, who listens on the same subject: the answer is its own.
                self.refusals["outlived"] += 1
                return
            fault = self._objection(parts.incarnation) or self._decode_and_queue(parts, answer_to)
        if fault is not None and answer_to is not None:
            answer_to(fault)

    def _warn_of_version(self, text: str) -> None:
        # The first and then fewer and fewer: a peer that is not told anything else goes on.
        count = self.refusals["version"]
        if count & (count + 1) == 0:
            log.warning("wire_version_refused", actor=self.entry.name, error=text, before=count)

    def offer_urgent(self, message: Message) -> None:
        """Queue a message of the runtime's own, if the actor handles its type."""
        if self._open and type(message) in self._methods:
            self.mailbox.put_urgent(Envelope(message, None, None))

    def _decode_and_queue(self, parts: Frame, answer_to: Answer | None) -> Fault | None:
        if self._decoder is None:
            return self._refuse("unhandled", "takes no messages")
        try:
            message = self._decoder.decode(parts.body)
        except UNREADABLE as error:
            return self._refuse("malformed", f"cannot read the message: {error}")
        answer = answer_to if parts.wants_answer else None
        if not self.mailbox.offer(Envelope(message, answer, answer_to, len(parts.body))):
            return self._refuse("full", f"its mailbox is full ({self.mailbox.statistics().limit})")
        return None

    def _objection(self, incarnation: int) -> Fault | None:
        if not self._open:
            return self._refuse("closed", "is stopping")
        if incarnation not in {0, self.entry.incarnation}:
            mine = self.entry.incarnation
            return self._refuse("stale", f"was meant for incarnation {incarnation}; this is {mine}")
        return None

    def _refuse(self, why: str, text: str) -> Fault:
        self.refusals[why] += 1
        return Fault("gone" if why in {"stale", "closed"} else "refused", text)

    # -- handling ------------------------------------------------------------------------------

    async def _run(self) -> None:
        handled = size = 0
        while True:
            envelope = await self.mailbox.get()
            method, concurrent = self._methods[type(envelope.message)]
            if concurrent:
                self._start_beside(method, envelope)
            elif not await self._handle(method, envelope):
                return
            handled, size = handled + 1, size + envelope.size
            if handled >= FAIRNESS or size >= FAIRNESS_BYTES:
                await asyncio.sleep(0)
                handled = size = 0

    async def _handle(self, method: Callable[[Message], Any], envelope: Envelope) -> bool:
        """Run one handler; False when it ended the actor."""
        try:
            result = method(envelope.message)
            # Most return nothing, and an abstract class takes its time to say so of it.
            if result is not None and inspect.isawaitable(result):
                result = await result
            # In here, because a result that cannot travel is the handler's defect too.
            _answer(envelope, result)
        except Declined as error:
            _answer(envelope, _boxed(error))
        except Exception as error:  # noqa: BLE001 - the boundary of an actor: whatever it is ends it
            _answer(envelope, _boxed(error))
            self._failed(error)
            return False
        return True

    def _start_beside(self, method: Callable[[Message], Any], envelope: Envelope) -> None:
        async def run() -> None:
            await self._handle(method, envelope)

        task = asyncio.get_running_loop().create_task(run(), name=f"{self.entry.name}:beside")
        self._concurrent.add(task)
        task.add_done_callback(self._concurrent.discard)

    # -- the end -------------------------------------------------------------------------------

    async def stop(self) -> None:
        """Take no more messages, end the handlers, refuse what is queued, run `stopping`."""
        self._open = False
        running = [task for task in (self._loop_task, *self._concurrent) if task is not None]
        await tasks.end(*running)
        for envelope in self.mailbox.clear():
            if envelope.refuse is not None:
                envelope.refuse(Fault("gone", "is stopping"))
        await self.actor.cancel_tasks()
        await self.actor.stopping()


def _answer(envelope: Envelope, result: object) -> None:
    if envelope.answer is not None:
        envelope.answer(result)


def _boxed(error: BaseException) -> Fault:
    text = "".join(traceback.format_exception(error))
    return Fault("raised", str(error), type(error).__name__, text)
