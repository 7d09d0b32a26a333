"""Looks over the shoulders of sessions and directories, and counts what sometimes happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING
from unittest.mock import patch

from actors.ingress import session as life
from actors.ingress.session import Session

if TYPE_CHECKING:
    from tests.simulation.world import World


@contextmanager
def watched(world: World) -> Iterator[None]:
    """While this lasts, what sessions do is counted."""
    step = Session.step

    def stepping(self: Session, event: life.Event, now: float) -> list[life.Action]:
        before = (self.epoch, len(self.delivered) - self._epoch_start, self.stale_chunks)
        actions = step(self, event, now)
        if isinstance(event, life.Arrived):
            _count_arrival(world, event, before, self)
        if any(isinstance(action, life.Submit) for action in actions):
            _count_replay(world, event, self)
        return actions

    with ExitStack() as stack:
        stack.enter_context(patch.object(Session, "step", stepping))
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
