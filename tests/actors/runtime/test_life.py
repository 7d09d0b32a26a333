"""An actor's life: starting, draining, failing, stopping."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from actors.runtime.actor import Actor, handler
from actors.runtime.errors import ActorFailed, NameTaken
from actors.runtime.node import Hosted
from actors.runtime.registry.base import State
from tests.actors.runtime.stage import Deaf, Echo, Note, Watcher, settle, stage


class Slow(Actor):
    """Starts when its gate opens."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]  # passed on as they came
        self.gate = asyncio.Event()
        self.heard: list[str] = []

    async def starting(self) -> None:
        await self.gate.wait()

    @handler
    async def note(self, message: Note) -> None:
        self.heard.append(message.text)


class Stillborn(Actor):
    stopped = False

    async def starting(self) -> None:
        raise RuntimeError("no")

    async def stopping(self) -> None:
        self.stopped = True


class BadAtStopping(Actor):
    async def stopping(self) -> None:
        raise RuntimeError("cannot let go")


async def test_an_actor_gets_its_own_default_options() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")

        assert echo.options == Echo.Options("!")


async def test_messages_wait_until_the_actor_is_ready() -> None:
    async with stage() as opened:
        node = await opened.node()
        watcher = await opened.host(Watcher, "w")
        hosting = asyncio.create_task(node.host(Hosted(actor=Slow, role="slow")))
        await settle()
        slow = node.cells[0].actor
        assert isinstance(slow, Slow)
        before = opened.store.entries["slow/0"].state

        watcher.tell(slow.address, Note("early"))
        await settle()
        assert slow.heard == []

        slow.gate.set()
        await hosting
        await settle()
        after = opened.store.entries["slow/0"].state
        assert slow.heard == ["early"]
        assert (before, after) == (State.STARTING, State.READY)


async def test_a_failing_start_is_raised_and_the_actor_may_clean_up() -> None:
    async with stage() as opened:
        with pytest.raises(RuntimeError, match="no"):
            await opened.node(Hosted(actor=Stillborn, role="stillborn"))

        [node] = opened.nodes
        await node.stop()
        actor = node.cells[0].actor
        assert isinstance(actor, Stillborn)
        assert actor.stopped
        assert opened.store.entries == {}


async def test_a_spawned_task_that_fails_ends_the_actor() -> None:
    async def fail() -> None:
        raise ValueError("in the background")

    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        echo.spawn(fail(), name="doomed")

        with pytest.raises(ActorFailed, match="echo/0 failed: ValueError: in the background"):
            await echo.node.wait()


async def test_spawned_tasks_end_with_the_actor() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        task = echo.spawn(asyncio.Event().wait(), name="endless")  # type: ignore[arg-type]  # its result is dropped

        await echo.node.stop()

        assert task.cancelled()
        await echo.node.wait()


async def test_drain_says_so_and_takes_the_role_out_of_turn() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")

        await echo.node.drain()
        await settle()

        assert echo.events == ["draining"]
        assert opened.store.entries["echo/0"].state is State.DRAINING
        assert watcher.directory.ready("echo") == []
        assert await watcher.ask(echo.address, Note("old friend"), reply=str) == "old friend!"


async def test_a_name_held_by_a_live_actor_is_taken() -> None:
    async with stage() as opened:
        await opened.host(Echo, "echo")

        with pytest.raises(NameTaken, match=r"echo/0 is taken by n0"):
            await opened.host(Echo, "echo")


async def test_every_life_of_a_name_has_a_greater_incarnation() -> None:
    async with stage() as opened:
        seen = []
        for above in (0, 0, 1000, 0):
            echo = await opened.host(Echo, "echo", above=above)
            seen.append(echo.address.incarnation)
            await echo.node.stop()

        assert seen == sorted(set(seen))
        assert seen[2] > 1000


async def test_a_predecessor_that_stops_late_leaves_its_successors_entry() -> None:
    async with stage() as opened:
        old = await opened.host(Echo, "echo")
        new = await opened.host(Echo, "echo", above=old.address.incarnation)

        await old.node.stop()

        assert opened.store.entries["echo/0"].address == new.address


async def test_actors_stop_in_reverse_order_and_one_that_fails_stops_nobody_elses_end() -> None:
    async with stage() as opened:
        node = await opened.node(
            Hosted(actor=Echo, role="echo"), Hosted(actor=BadAtStopping, role="bad")
        )
        with structlog.testing.capture_logs() as logs:
            await node.stop()
            await node.stop()

        echo = node.cells[0].actor
        assert isinstance(echo, Echo)
        assert echo.events == ["stopping"]
        assert opened.store.entries == {}
        assert [line["event"] for line in logs] == ["stopping_failed"]


async def test_the_hooks_may_be_left_alone() -> None:
    async with stage() as opened:
        deaf = await opened.host(Deaf, "deaf")
        await deaf.node.drain()

        assert (deaf.meta(), deaf.progress()) == (None, (0, False))
