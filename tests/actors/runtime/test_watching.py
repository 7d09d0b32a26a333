"""Who is there: monitors, watches, and what actors publish of themselves."""

from __future__ import annotations

import msgspec

from actors.runtime.actor import Down, Joined
from actors.runtime.address import Address
from actors.runtime.message import encode
from actors.runtime.node import Departed, Node, departures
from actors.runtime.registry.base import State
from tests.actors.runtime.stage import NAMESPACE, Echo, Watcher, settle, stage


def announce(node: Node, address: Address, reason: str) -> None:
    """Broadcast the end of a life, as a supervisor does."""
    node.transport.publish(departures(NAMESPACE), encode(Departed(address, reason)))


async def test_a_monitored_life_that_ends_gives_one_down() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)
        watcher.monitor(echo.address)

        await echo.node.stop()
        await settle()

        assert watcher.seen == [Down(echo.address, "left the registry")]


async def test_the_first_witness_is_believed_and_the_registry_adds_nothing() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)
        watcher.watch("echo")

        announce(watcher.node, echo.address, "exit code 9")
        announce(watcher.node, echo.address, "exit code 9, told again")
        await settle()
        await echo.node.stop()
        await settle()

        assert watcher.downs() == [Down(echo.address, "exit code 9")]


async def test_monitoring_a_life_already_over_gives_its_down_at_once() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        await echo.node.stop()  # known from the registry alone

        watcher.monitor(echo.address)
        await settle()

        assert watcher.downs() == [Down(echo.address, "has ended")]


async def test_monitoring_a_replaced_life_gives_its_down_at_once() -> None:
    async with stage() as opened:
        old = await opened.host(Echo, "echo")
        await opened.host(Echo, "echo", above=old.address.incarnation)
        watcher = await opened.host(Watcher, "w")

        watcher.monitor(old.address)
        await settle()

        assert watcher.downs() == [Down(old.address, "has ended")]


async def test_a_life_never_seen_gives_its_down_when_somebody_saw_it_end() -> None:
    async with stage() as opened:
        watcher = await opened.host(Watcher, "w")
        unseen = Address("ghost", 0, 77)
        watcher.monitor(unseen)
        await settle()
        assert watcher.seen == []

        announce(watcher.node, unseen, "never got up")
        await settle()

        assert watcher.seen == [Down(unseen, "never got up")]


async def test_after_demonitor_no_down_comes() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)
        watcher.demonitor(echo.address)

        await echo.node.stop()
        await settle()

        assert watcher.seen == []


async def test_a_successor_is_down_and_joined_in_this_order() -> None:
    async with stage() as opened:
        old = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.watch("echo")
        await settle()
        watcher.seen.clear()

        new = await opened.host(Echo, "echo", above=old.address.incarnation)
        await settle()

        assert watcher.seen[0] == Down(old.address, "was replaced")
        joined = [message.entry for message in watcher.seen[1:] if isinstance(message, Joined)]
        assert [entry.state for entry in joined] == [State.STARTING, State.READY]
        assert {entry.address for entry in joined} == {new.address}


async def test_watch_tells_those_present_first_and_then_the_changes() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")

        watcher.watch("echo")
        await settle()
        [joined] = watcher.seen
        assert isinstance(joined, Joined)
        assert joined.entry.address == echo.address

        echo.published = {"model": "m"}
        echo.publish_meta()
        await settle()

        told = watcher.seen[1]
        assert isinstance(told, Joined)
        assert msgspec.json.decode(told.entry.meta) == {"model": "m"}


async def test_watching_everything_includes_every_role() -> None:
    async with stage() as opened:
        watcher = await opened.host(Watcher, "w")
        watcher.watch("*")
        echo = await opened.host(Echo, "echo")
        await echo.node.stop()
        await settle()

        roles = {message.entry.role for message in watcher.seen if isinstance(message, Joined)}
        assert roles == {"w", "echo"}
        assert watcher.downs() == [Down(echo.address, "left the registry")]


async def test_an_unreadable_departure_is_ignored() -> None:
    async with stage() as opened:
        watcher = await opened.host(Watcher, "w")
        for frame in (b"", b"\x09" * 20, encode(None)):
            watcher.node.transport.publish(departures(NAMESPACE), frame)
        await settle()

        announce(watcher.node, Address("x", 0, 1), "still listening")
        watcher.monitor(Address("x", 0, 1))
        await settle()

        assert len(watcher.downs()) == 1


async def test_one_metadata_write_after_another_leaves_the_last() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        for number in range(3):
            echo.published = {"number": number}
            echo.publish_meta()
        await settle()

        meta = opened.store.entries["echo/0"].meta
        assert msgspec.json.decode(meta) == {"number": 2}


async def test_an_entry_is_not_written_again_after_it_was_withdrawn() -> None:
    async with stage() as opened:
        echo = await opened.host(Echo, "echo")
        await echo.node.registry.withdraw(echo.node.cells[0].entry)

        echo.publish_meta()
        await settle()

        assert opened.store.entries == {}
