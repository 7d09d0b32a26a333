"""Looks over the shoulders of sessions, registries, directories and mailboxes: counts what
sometimes happens, and has a run fail at once where a life is taken for another."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch
from weakref import WeakKeyDictionary

from actors.engines.base import Finish
from actors.engines.simulated import SimulatedEngine
from actors.ingress import session as life
from actors.ingress.session import Session
from actors.messages.frame import Frame
from actors.runtime.address import Address
from actors.runtime.cell import Answer, Cell
from actors.runtime.directory import Change, Directory
from actors.runtime.message import split
from actors.runtime.registry.base import Entry, Observation
from actors.runtime.registry.etcd import EtcdRegistry
from actors.worker.jobs import Jobs

if TYPE_CHECKING:
    from tests.simulation.world import World

PATIENT_S = 30.0
"""A handoff is not fetched later than this for want of room, in as little work as a run has."""
LOSING_NO_MESSAGE = {
    "etcd-stop",
    "etcd-pause",
    "etcd-loss",
    "etcd-away",
    "etcd-lag",
    "etcd-compact",
    "lease-revoked",
    "key-deleted",
    "supervisor-kill",
    "restart",
    "fetch-fails",
}
"""Faults under which whoever has to say that blocks are not needed any more can say so."""


@contextmanager
def watched(world: World) -> Iterator[None]:
    """While this lasts, what sessions do is counted."""
    step = Session.step

    def stepping(self: Session, event: life.Event, now: float) -> list[life.Action]:
        delivered = len(self.delivered)
        before = (self.epoch, len(self.delivered) - self._epoch_start, self.stale_chunks)
        workers = {self.context, self.generation} if self.phase is life.Phase.ASSIGNED else set()
        actions = step(self, event, now)
        if isinstance(event, life.Arrived):
            _count_arrival(world, event, before, self)
            if event.chunk.epoch != before[0] and len(self.delivered) > delivered:
                world.wrong(f"attempt {before[0]} took tokens of attempt {event.chunk.epoch}")
        if any(isinstance(action, life.Submit) for action in actions):
            _count_replay(world, event, self)
            if isinstance(event, life.Fell) and event.address in workers:
                world.count("a replay after the fall of its worker")
        return actions

    take_next = Session.take_next

    def taking(self: Session, epoch: int, offset: int, token: int, now: float) -> bool:
        taken = take_next(self, epoch, offset, token, now)
        if taken and epoch != self.epoch:
            world.wrong(f"attempt {self.epoch} took tokens of attempt {epoch}")
        return taken

    with ExitStack() as stack:
        stack.enter_context(patch.object(Session, "step", stepping))
        stack.enter_context(patch.object(Session, "take_next", taking))
        stack.enter_context(_lives_only_grow(world))
        stack.enter_context(_views_only_grow(world))
        stack.enter_context(_nobody_takes_what_another_was_sent(world))
        stack.enter_context(_the_cancelled_are_not_spoken_of(world))
        stack.enter_context(_blocks_are_let_go(world))
        yield


@contextmanager
def _lives_only_grow(world: World) -> Iterator[None]:
    """Every life of a name has a greater incarnation than all before it, whoever heard of them."""
    claim = EtcdRegistry.claim
    last: dict[str, int] = {}

    async def claiming(self: EtcdRegistry, entry: Entry, *, above: int = 0) -> Entry:
        claimed = await claim(self, entry, above=above)
        name, before = claimed.name, last.get(claimed.name, 0)
        if claimed.incarnation <= before:
            world.wrong(f"the life of {name} after {before} is {claimed.incarnation}")
        last[name] = claimed.incarnation
        return claimed

    with patch.object(EtcdRegistry, "claim", claiming):
        yield


@contextmanager
def _views_only_grow(world: World) -> Iterator[None]:
    """No node goes back to an older life than one that it has known."""
    observe = Directory.observe
    known: WeakKeyDictionary[Directory, dict[str, int]] = WeakKeyDictionary()

    def observing(self: Directory, observation: Observation, now: float) -> list[Change]:
        changes = observe(self, observation, now)
        seen = known.setdefault(self, {})
        for entry in self.all():
            before = seen.get(entry.name, 0)
            if entry.incarnation < before:
                world.wrong(f"{entry.name}#{entry.incarnation} is seen after #{before}")
            seen[entry.name] = entry.incarnation
        return changes

    with patch.object(Directory, "observe", observing):
        yield


@contextmanager
def _nobody_takes_what_another_was_sent(world: World) -> Iterator[None]:
    """No life handles a message to an earlier or later one of its name."""
    offer_frame = Cell.offer_frame

    def offering(self: Cell, frame: bytes, answer_to: Answer | None) -> None:
        waiting = len(self.mailbox)
        offer_frame(self, frame, answer_to)
        meant = split(frame).incarnation
        if meant in {0, self.entry.incarnation}:
            return
        world.count("a message to another life was refused")
        if len(self.mailbox) > waiting:
            name = f"{self.entry.name}#{self.entry.incarnation}"
            world.wrong(f"{name} took what was sent to #{meant}")

    with patch.object(Cell, "offer_frame", offering):
        yield


@contextmanager
def _the_cancelled_are_not_spoken_of(world: World) -> Iterator[None]:
    """A request that is cancelled has no end: whoever cancelled it has forgotten it."""
    take_frames = Jobs.take_frames

    def taking(self: Jobs, me: Address) -> list[tuple[Address, Frame]]:
        frames = take_frames(self, me)
        for _, frame in frames:
            for chunk in frame.chunks:
                if chunk.finish == Finish.CANCELLED.value:
                    world.wrong(f"{me} tells of a cancelled request: {chunk}")
        return frames

    with patch.object(Jobs, "take_frames", taking):
        yield


@contextmanager
def _blocks_are_let_go(world: World) -> Iterator[None]:
    """Blocks of a handoff are freed by what somebody says, not by their time running out, where
    nobody who could say it is lost and no message either."""
    expire = SimulatedEngine._expire
    scenario = world.scenario
    patient = scenario.engine["handoff_ttl_s"] >= PATIENT_S
    spoken = scenario.calm and patient and {f.what for f in scenario.faults} <= LOSING_NO_MESSAGE

    def expiring(self: SimulatedEngine, request_id: int) -> None:
        world.count("the blocks of a handoff ran out of time")
        if spoken:
            world.wrong(f"nobody let the blocks of request {request_id} go")
        expire(self, request_id)

    with patch.object(SimulatedEngine, "_expire", expiring):
        yield


def _count_arrival(
    world: World, event: life.Arrived, before: tuple[int, int, int], session: Session
) -> None:
    chunk = event.chunk
    epoch, expected, _stale = before
    if chunk.epoch != epoch:
        world.count("a token of an older attempt was dropped")
    elif chunk.offset > expected:
        world.count("a token came before its predecessor")
    elif chunk.offset < expected and chunk.tokens:
        world.count("a repeated token was dropped")
    if session.epoch > epoch and session.delivered:
        world.count("a replay after a chunk")


def _count_replay(world: World, event: life.Event, session: Session) -> None:
    kind = type(event).__name__
    world.trace(f"replay {session.epoch} with {len(session.delivered)} after {event}")
    world.count(f"a replay after {kind}")
    if session.delivered:
        world.count("a replay in the middle")
    if session.epoch > 1:
        world.count("a second replay")
