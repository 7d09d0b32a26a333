"""The actor: state of its own, one message at a time, and nothing shared.

    class Greeter(Actor):
        class Options(msgspec.Struct, frozen=True):
            greeting: str = "Hello"

        options: Options

        @handler
        async def greet(self, message: Greet) -> str:
            return f"{self.options.greeting}, {message.name}!"

A handler is chosen by the type of the message, which is the annotation of its parameter. What it
returns is the answer to an `ask`; for a `tell` it is dropped.

What the runtime promises:

- One message at a time. The next one waits until the handler, awaits included, is done. A
  `@handler(concurrent=True)` gives this up for its own type: it runs in a task beside the others.
- Messages from one sender are handled in the order sent, while the connection lasts. Nothing is
  promised across senders.
- A handler that raises ends the actor and its node; the supervisor decides what comes next. To
  answer "no" and live on, raise `Declined`.
- At the end messages still queued are refused: an asker gets `NoSuchActor`, a teller a `Returned`.
"""

from __future__ import annotations

import asyncio
import inspect
import types
import typing
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

import msgspec

from actors.runtime import tasks
from actors.runtime.address import Address
from actors.runtime.message import Message
from actors.runtime.registry.base import Entry

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from actors.runtime.clock import Clock
    from actors.runtime.directory import Directory
    from actors.runtime.metrics import Metrics
    from actors.runtime.node import Node

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

DEFAULT_MAILBOX_LIMIT = 10_000
_MARK = "__understudy_handler__"
_FOUND = "_understudy_handlers"


class NoOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For actors that take none."""


class Down(Message, frozen=True):
    """A monitored actor's life has ended. Comes exactly once for each life monitored."""

    address: Address
    reason: str


class Joined(Message, frozen=True):
    """An instance of a watched role is there, or says something new of itself."""

    entry: Entry


class Regained(Message, frozen=True):
    """This node's connection to the others was lost and is back; what was on its way in the
    meantime, in either direction, may have been lost. Only actors with a handler get it."""


class Returned(Message, frozen=True):
    """A tell of ours was not taken, and certainly not handled. Only actors with a handler for
    this type get it."""

    message: Any
    target: Address
    reason: str


@overload
def handler(function: F) -> F: ...
@overload
def handler(*, concurrent: bool = False) -> Callable[[F], F]: ...
def handler(function: F | None = None, *, concurrent: bool = False) -> F | Callable[[F], F]:
    """Mark a method that handles the messages of its parameter's type."""

    def mark(method: F) -> F:
        setattr(method, _MARK, concurrent)
        return method

    return mark if function is None else mark(function)


class Handler(msgspec.Struct, frozen=True):
    """One method of an actor class."""

    name: str
    types: tuple[type[Message], ...]
    concurrent: bool


class Actor:
    """Base of all actors. Override the hooks; call the rest."""

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    mailbox_limit: ClassVar[int] = DEFAULT_MAILBOX_LIMIT

    def __init__(self, node: Node, role: str, instance: int, options: Any) -> None:
        self.node = node
        self.role = role
        self.instance = instance
        self.options = options
        self.address = Address(role, instance)
        self._tasks: set[asyncio.Task[Any]] = set()

    @classmethod
    def preload(cls, options: Any, base_dir: Path) -> None:
        """Import what an actor with these options will need; paths in them are relative to
        `base_dir`. Runs in a process that is forked later, perhaps many times: start no thread,
        open nothing, touch no device."""
        del options, base_dir

    # -- hooks ---------------------------------------------------------------------------------

    async def starting(self) -> None:
        """Load what is needed. The actor is registered as starting and gets no messages yet; it
        becomes ready when this returns. May take minutes."""

    async def draining(self) -> None:
        """Finish what is in hand; return when nothing is left. No new work is sent here by then.
        The supervisor bounds the time."""

    async def stopping(self) -> None:
        """Give back what is held. Runs after the last handler, also after a failure; not when the
        process is killed."""

    def meta(self) -> object | None:
        """What others may read of this actor in the registry, as something JSON can hold. Asked
        before `starting`, when the actor becomes ready, and by `publish_meta`."""
        return None

    def progress(self) -> tuple[int, bool]:
        """(a number that grows with work done, whether there is work to do): what the watchdog
        reads to tell busy from stuck."""
        return 0, False

    def patience_s(self) -> float:
        """How long one unit of `progress` may honestly take, in seconds; 0 for no opinion."""
        return 0.0

    def gauges(self) -> dict[str, float]:
        """Numbers an operator wants to see live, by name: rates, depths, shares."""
        return {}

    def troubles(self) -> list[str]:
        """What an operator ought to know of now, in words; `supervise status` shows it."""
        return []

    # -- speaking ------------------------------------------------------------------------------

    def tell(self, target: Address | str, message: Message) -> Address:
        """Send and go on. At most once; see the module for the order.

        A role name goes to one of its ready instances: to one in this node if there is one, else
        in turns. Returns the address chosen. Raises NoSuchActor when the role has no ready
        instance, or the address is known to be gone.
        """
        return self.node.tell(target, message, sender=self)

    async def ask(
        self,
        target: Address | str,
        message: Message,
        *,
        reply: type[T],
        timeout_s: float = 5.0,
    ) -> T:
        """Send and wait for the answer, read as `reply`.

        Raises NoSuchActor, Refused, RemoteError (each: see the errors), ProtocolError when the
        answer is no `reply`, or AskTimeout, which alone leaves open whether the message was
        handled.
        """
        return await self.node.ask(target, message, reply=reply, timeout_s=timeout_s)

    def monitor(self, address: Address) -> None:
        """Get one `Down` when this life of the actor ends; at once if it already has."""
        self.node.monitor(self, address)

    def demonitor(self, address: Address) -> None:
        """Take `monitor` back; no `Down` comes after this."""
        self.node.demonitor(self, address)

    def watch(self, role: str) -> None:
        """Get `Joined` for every instance of the role, those present first, and `Down` for each
        that leaves. `"*"` stands for every role."""
        self.node.watch(self, role)

    def publish_meta(self) -> None:
        """Write what `meta` returns now to the registry."""
        self.node.publish_meta(self)

    # -- surroundings --------------------------------------------------------------------------

    @property
    def directory(self) -> Directory:
        """Who is there, as this node knows it."""
        return self.node.directory

    @property
    def clock(self) -> Clock:
        return self.node.clock

    @property
    def metrics(self) -> Metrics:
        """Where this node counts; see `actors.runtime.metrics`."""
        return self.node.metrics

    @property
    def log(self) -> FilteringBoundLogger:
        log: FilteringBoundLogger = self.node.log.bind(actor=str(self.address))
        return log

    @property
    def waiting(self) -> int:
        """Messages in this actor's mailbox that come after the one being handled."""
        return self.node.waiting(self)

    def path(self, text: str) -> Path:
        """A path as the topology file means it: relative to that file."""
        return (self.node.base_dir / text).resolve()

    def spawn(self, work: Coroutine[Any, Any, None], *, name: str) -> asyncio.Task[None]:
        """Run a task that belongs to this actor: ended with it, and its failure is the actor's."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.address.name}:{name}")
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.node.fail(self, error)

    async def cancel_tasks(self) -> None:
        """End every task of `spawn`. Called by the runtime."""
        await tasks.end(*self._tasks)


def handlers_of(actor: type[Actor]) -> tuple[Handler, ...]:
    """The handlers of an actor class, its bases' included. Found once and kept by the class, as it
    takes milliseconds.

    Raises TypeError for a handler whose parameter is not annotated with a Message type or a union
    of them, and for a type that two methods handle.
    """
    found: tuple[Handler, ...] | None = vars(actor).get(_FOUND)
    if found is None:
        found = _find_handlers(actor)
        setattr(actor, _FOUND, found)
    return found


def _find_handlers(actor: type[Actor]) -> tuple[Handler, ...]:
    found: list[Handler] = []
    takers: dict[type[Message], str] = {}
    for name, method in inspect.getmembers(actor, inspect.isfunction):
        concurrent = getattr(method, _MARK, None)
        if concurrent is None:
            continue
        parameters = list(inspect.signature(method).parameters)[1:]
        hints = typing.get_type_hints(method)
        annotation = hints.get(parameters[0]) if len(parameters) == 1 else None
        is_union = typing.get_origin(annotation) in {typing.Union, types.UnionType}
        kinds = typing.get_args(annotation) if is_union else (annotation,)
        if not all(isinstance(kind, type) and issubclass(kind, Message) for kind in kinds):
            raise TypeError(
                f"{actor.__qualname__}.{name}: a handler takes one parameter annotated with a "
                f"Message type, not {annotation!r}"
            )
        for kind in kinds:
            other = takers.setdefault(kind, name)
            if other != name:
                raise TypeError(
                    f"{actor.__qualname__}: both {other} and {name} handle {kind.__name__}"
                )
        found.append(Handler(name, typing.cast("tuple[type[Message], ...]", kinds), concurrent))
    return tuple(found)
