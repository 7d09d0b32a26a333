"""What a class may declare as a handler."""

from __future__ import annotations

import pytest

from actors.runtime.actor import Actor, handler, handlers_of
from tests.actors.runtime.stage import Beside, Echo, Note, Wait


class Unannotated(Actor):
    @handler
    async def take(self, message) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - the point
        """Nobody can tell what this takes."""


class WrongType(Actor):
    @handler
    async def take(self, message: int) -> None:
        """An int is no message."""


class Listed(Actor):
    @handler
    async def take(self, message: list[Note]) -> None:
        """A list of messages is no message."""


class Optional(Actor):
    @handler
    async def take(self, message: Note | None) -> None:
        """None is no message."""


class TwoParameters(Actor):
    @handler
    async def take(self, message: Note, more: Note) -> None:
        """Messages come one at a time."""


class Ambiguous(Actor):
    @handler
    async def first(self, message: Note) -> None:
        """One of two."""

    @handler
    async def second(self, message: Wait | Note) -> None:
        """The other."""


class Louder(Echo):
    @handler
    async def note(self, message: Note) -> str:
        return message.text.upper()


@pytest.mark.parametrize("actor", [Unannotated, WrongType, Listed, Optional, TwoParameters])
def test_a_handler_that_takes_no_message_is_a_type_error(actor: type[Actor]) -> None:
    with pytest.raises(TypeError, match=rf"{actor.__name__}\.take: a handler takes one"):
        handlers_of(actor)


def test_two_handlers_for_one_type_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="both first and second handle Note"):
        handlers_of(Ambiguous)


def test_handlers_are_found_by_their_parameters_type() -> None:
    found = {kind: item for item in handlers_of(Echo) for kind in item.types}

    assert found[Note].name == "note"
    assert not found[Wait].concurrent
    assert found[Beside].concurrent


def test_a_subclass_overrides_a_handler_by_its_name() -> None:
    found = [item for item in handlers_of(Louder) if Note in item.types]

    assert [item.name for item in found] == ["note"]


def test_handlers_are_looked_up_once_for_each_class() -> None:
    assert handlers_of(Echo) is handlers_of(Echo)
    assert handlers_of(Louder) is not handlers_of(Echo)
