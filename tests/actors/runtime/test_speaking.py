"""Ask and tell, within one node and between two: the same promises either way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from actors.runtime import node as node_module
from actors.runtime.actor import Actor, Returned, handler
from actors.runtime.address import Address
from actors.runtime.cell import FAIRNESS
from actors.runtime.errors import (
    ActorFailed,
    AskTimeout,
    NoSuchActor,
    ProtocolError,
    Refused,
    RemoteError,
)
from actors.runtime.node import Hosted
from actors.runtime.transport.local import FRAME_LIMIT_BYTES
from tests.actors.runtime.stage import (
    Beside,
    Deaf,
    Decline,
    Echo,
    Fail,
    Foreign,
    Note,
    Produce,
    Stage,
    Wait,
    Watcher,
    settle,
    stage,
)

Cast = tuple[Stage, Echo, Watcher]
Setting = Callable[[], AbstractAsyncContextManager[Cast]]


@asynccontextmanager
async def together() -> AsyncIterator[Cast]:
    """An echo and a watcher in one node."""
    async with stage() as opened:
        node = await opened.node(Hosted(actor=Echo, role="echo"), Hosted(actor=Watcher, role="w"))
        echo, watcher = (cell.actor for cell in node.cells)
        assert isinstance(echo, Echo)
        assert isinstance(watcher, Watcher)
        yield opened, echo, watcher


@asynccontextmanager
async def apart() -> AsyncIterator[Cast]:
    """An echo and a watcher in two nodes."""
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        yield opened, echo, await opened.host(Watcher, "w")


BOTH = pytest.mark.parametrize("setting", [together, apart])


class Hearer(Actor):
    """Counts what it is told."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard = 0

    @handler
    def note(self, message: Note) -> None:
        del message
        self.heard += 1


async def fill(echo: Echo, watcher: Actor) -> None:
    """One message in the handler, and as many behind it as the mailbox takes."""
    for number in range(1 + echo.mailbox_limit):
        watcher.tell(echo.address, Wait(str(number)))
        await settle()


@BOTH
async def test_an_ask_is_answered(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        assert await watcher.ask(echo.address, Note("hi"), reply=str) == "hi!"
        assert await watcher.ask("echo", Note("role"), reply=str) == "role!"
        assert await watcher.ask(Address("echo"), Note("any life"), reply=str) == "any life!"


@BOTH
async def test_tells_arrive_in_the_order_sent(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        texts = [str(number) for number in range(4)]
        for text in texts:
            assert watcher.tell("echo", Note(text)) == echo.address
        await settle()

        assert echo.heard == texts


@BOTH
async def test_one_message_is_handled_at_a_time(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        asks = [
            asyncio.create_task(watcher.ask(echo.address, Wait(text), reply=str)) for text in "abc"
        ]
        await settle()
        assert echo.heard == ["a"]

        echo.gate.set()

        assert await asyncio.gather(*asks) == ["a", "b", "c"]
        assert echo.most_running == 1


@pytest.mark.parametrize(("text", "in_one_go"), [("x", FAIRNESS), ("x" * 10_000, 4)])
async def test_an_actor_with_much_to_do_lets_others_have_their_turn(
    text: str, in_one_go: int
) -> None:
    async with stage() as opened:
        hearer, watcher = await opened.host(Hearer, "hearer"), await opened.host(Watcher, "w")
        for _ in range(3 * in_one_go):
            watcher.tell(hearer.address, Note(text))
        counts: list[int] = []
        while not counts or counts[-1] < 3 * in_one_go:
            await asyncio.sleep(0)
            counts.append(hearer.heard)

    assert max(after - before for before, after in pairwise([0, *counts])) == in_one_go


@BOTH
async def test_a_concurrent_handler_runs_beside_the_others(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        asks = [
            asyncio.create_task(watcher.ask(echo.address, Beside(text), reply=str))
            for text in "abc"
        ]
        await settle()
        assert echo.running == 3
        assert await watcher.ask(echo.address, Note("meanwhile"), reply=str) == "meanwhile!"

        echo.gate.set()

        assert await asyncio.gather(*asks) == ["a", "b", "c"]


@BOTH
async def test_declined_is_an_error_for_the_asker_and_the_actor_lives(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        with pytest.raises(RemoteError, match="Declined: not now") as caught:
            await watcher.ask(echo.address, Decline("not now"), reply=str)

        assert caught.value.remote_type == "Declined"
        assert await watcher.ask(echo.address, Note("still"), reply=str) == "still!"


@BOTH
async def test_a_raising_handler_fails_the_asker_and_the_node(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        with pytest.raises(RemoteError) as caught:
            await watcher.ask(echo.address, Fail("x"), reply=str)

        assert (caught.value.remote_type, caught.value.target) == ("KeyError", echo.address)
        assert "in fail" in caught.value.remote_traceback
        with pytest.raises(ActorFailed, match="echo/0 failed: KeyError: 'x'"):
            await echo.node.wait()


async def test_an_answer_that_cannot_travel_is_the_handlers_failure() -> None:
    async with apart() as (_, echo, watcher):
        with pytest.raises(RemoteError, match="TypeError"):
            await watcher.ask(echo.address, Produce(-1), reply=bytes)

        with pytest.raises(ActorFailed, match="TypeError"):
            await echo.node.wait()


async def test_an_answer_too_long_to_travel_is_an_error_and_the_actor_lives() -> None:
    async with apart() as (_, echo, watcher):
        with pytest.raises(RemoteError, match="AnswerTooLarge"):
            await watcher.ask(echo.address, Produce(FRAME_LIMIT_BYTES), reply=bytes)

        assert len(await watcher.ask(echo.address, Produce(1000), reply=bytes)) == 1000


@BOTH
async def test_an_answer_of_another_type_is_a_protocol_error(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        with pytest.raises(ProtocolError, match="an answer of another type"):
            await watcher.ask(echo.address, Note("hi"), reply=int)


@BOTH
async def test_an_ask_without_answer_in_time_says_that_the_outcome_is_unknown(
    setting: Setting,
) -> None:
    async with setting() as (_, echo, watcher):
        with pytest.raises(AskTimeout, match="the outcome is unknown") as caught:
            await watcher.ask(echo.address, Wait("x"), reply=str, timeout_s=0.01)

        assert caught.value.target == echo.address
        assert echo.heard == ["x"]


@BOTH
async def test_a_full_mailbox_refuses_an_ask_and_returns_a_tell(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        await fill(echo, watcher)

        with pytest.raises(Refused, match=r"its mailbox is full \(4\)"):
            await watcher.ask(echo.address, Note("too much"), reply=str)
        watcher.tell(echo.address, Note("too much"))
        [returned] = await watcher.until(1)

        assert isinstance(returned, Returned)
        assert (returned.message, returned.target) == (Note("too much"), echo.address)
        assert "full" in returned.reason
        assert echo.node.cells[0].refusals == {"full": 2}
        echo.gate.set()


@BOTH
async def test_what_is_queued_at_the_end_is_refused(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        watcher.tell(echo.address, Wait("in hand"))
        await settle()
        asking = asyncio.create_task(watcher.ask(echo.address, Note("queued"), reply=str))
        await settle()
        watcher.tell(echo.address, Note("told"))
        await settle()

        [cell] = [cell for cell in echo.node.cells if cell.actor is echo]
        await cell.stop()

        with pytest.raises(NoSuchActor, match="is stopping"):
            await asking
        [returned] = await watcher.until(1)
        assert isinstance(returned, Returned)
        assert returned.message == Note("told")
        assert echo.heard == ["in hand"]


@BOTH
async def test_a_stale_incarnation_is_refused_and_counted(setting: Setting) -> None:
    async with setting() as (_opened, echo, watcher):
        stale = Address("echo", 0, echo.address.incarnation - 1)
        # The watcher's node knows better from the registry; let it be mistaken.
        watcher.node.directory = type(watcher.node.directory)()

        with pytest.raises(NoSuchActor, match="was meant for incarnation"):
            await watcher.ask(stale, Note("old"), reply=str)
        watcher.tell(stale, Note("old"))
        await watcher.until(1)

        assert echo.heard == []
        [cell] = [cell for cell in echo.node.cells if cell.actor is echo]
        assert cell.refusals == {"stale": 2}


async def test_a_predecessor_that_still_runs_leaves_the_answer_to_its_successor() -> None:
    async with stage() as opened:
        old = await opened.host(Echo, "echo")
        new = await opened.host(Echo, "echo", above=old.address.incarnation)
        watcher = await opened.host(Watcher, "w")

        assert await watcher.ask(new.address, Note("who"), reply=str) == "who!"

        assert (old.heard, new.heard) == ([], ["who"])
        assert old.node.cells[0].refusals == {"outlived": 1}


@BOTH
async def test_a_message_the_actor_does_not_take_is_refused(setting: Setting) -> None:
    async with setting() as (_, echo, watcher):
        with pytest.raises(Refused):
            await watcher.ask(echo.address, Foreign("?"), reply=str)
        assert await watcher.ask(echo.address, Note("on"), reply=str) == "on!"


async def test_nobody_there_is_known_at_once() -> None:
    async with apart() as (_, _echo, watcher):
        with pytest.raises(NoSuchActor):
            await watcher.ask(Address("nobody", 0, 3), Note("hi"), reply=str)
        with pytest.raises(NoSuchActor, match="no instance is ready"):
            watcher.tell("nobody", Note("hi"))
        with pytest.raises(NoSuchActor):
            watcher.tell(Address("nobody"), Note("hi"))
        watcher.tell(Address("nobody", 0, 3), Note("hi"))
        [returned] = await watcher.until(1)
        assert isinstance(returned, Returned)
        assert returned.reason == "nobody listens there"


async def test_a_life_known_to_be_over_is_not_spoken_to() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        await echo.node.stop()

        with pytest.raises(NoSuchActor, match="that life is over"):
            watcher.tell(echo.address, Note("hi"))


async def test_only_an_actor_that_handles_returned_gets_it() -> None:
    async with stage() as opened:
        node = await opened.node(Hosted(actor=Deaf, role="deaf"))

        node.cells[0].actor.tell(Address("nobody", 0, 3), Note("hi"))
        await settle()

        assert node.cells[0].mailbox.statistics().accepted == 0


async def test_a_frame_too_long_to_travel_bounces_or_is_refused() -> None:
    async with apart() as (_, echo, watcher):
        long = Note("x" * FRAME_LIMIT_BYTES)
        with pytest.raises(Refused, match="over the transport's limit"):
            await watcher.ask(echo.address, long, reply=str)
        watcher.tell(echo.address, long)
        [returned] = await watcher.until(1)

        assert isinstance(returned, Returned)
        assert "over the transport's limit" in returned.reason
        assert watcher.node.transport.statistics().dropped == 1


async def test_delivery_inside_a_node_encodes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with together() as (_, echo, watcher):

        def refuse(*_: object, **__: object) -> bytes:
            raise AssertionError("encoded")

        monkeypatch.setattr(node_module, "encode", refuse)
        watcher.tell("echo", Note("told"))

        assert await watcher.ask("echo", Note("asked"), reply=str) == "asked!"
        assert echo.heard == ["told", "asked"]


async def test_a_role_is_spoken_to_in_turns() -> None:
    async with stage() as opened:
        echoes = [await opened.host(Echo, "echo", instance) for instance in range(3)]
        watcher = await opened.host(Watcher, "w")

        chosen = {watcher.tell("echo", Note("hi")) for _ in range(3)}

        assert chosen == {echo.address for echo in echoes}


async def test_a_role_with_an_instance_in_this_node_stays_in_it() -> None:
    async with together() as (opened, echo, watcher):
        await opened.host(Echo, "echo", 1)

        assert {watcher.tell("echo", Note("hi")) for _ in range(3)} == {echo.address}
