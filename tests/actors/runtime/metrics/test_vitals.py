"""What a node tells of itself."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from actors.runtime.errors import NoSuchActor, Refused
from actors.runtime.message import WIRE_VERSION, Fault, decode_answer, encode
from actors.runtime.metrics import Family
from actors.runtime.node import Hosted, Node, mailbox_subject
from actors.runtime.registry.base import Entry, State
from tests.actors.runtime.stage import NAMESPACE, Echo, Foreign, Note, Watcher, settle, stage


def value(node: Node, name: str, *labels: str) -> float:
    """Of one series; the test fails when it is not there."""
    [family] = [one for one in node.metrics.collect() if one.name == name]
    [point] = [one for one in family.points if one.labels == labels]
    return point.value


async def test_mailboxes_and_what_they_refuse_are_counted() -> None:
    async with stage() as on:
        echo = await on.host(Echo, "echo")
        sender = await on.host(Watcher, "watcher")
        await sender.ask("echo", Note("a"), reply=str)
        with pytest.raises(Refused):
            await sender.ask(echo.address, Foreign("b"), reply=str)

        node = echo.node
        assert value(node, "understudy_mailbox_limit", "echo/0") == Echo.mailbox_limit
        assert value(node, "understudy_mailbox_messages_total", "echo/0") == 1
        assert value(node, "understudy_mailbox_depth", "echo/0") == 0
        assert value(node, "understudy_mailbox_refusals_total", "echo/0", "malformed") == 1
        assert value(node, "understudy_mailbox_refusals_total", "echo/0", "full") == 0


async def test_frames_of_another_wire_version_are_refused_told_and_counted() -> None:
    async with stage() as on:
        echo = await on.host(Echo, "echo")
        sender = await on.host(Watcher, "watcher")
        subject = mailbox_subject(NAMESPACE, "echo", 0)
        foreign = bytes([WIRE_VERSION + 1]) + encode(Note("b"), wants_answer=True)[1:]

        with capture_logs() as said:
            answer = await sender.node.transport.request(subject, foreign, 5.0)
            sender.node.transport.publish(subject, foreign)
            assert await sender.ask("echo", Note("a"), reply=str) == "a!"

        told = decode_answer(answer)
        text = f"wire version {WIRE_VERSION + 1} is not understood (this is {WIRE_VERSION})"
        assert told == Fault("refused", text)
        warned = [line for line in said if line["event"] == "wire_version_refused"]
        assert [(line["actor"], line["error"]) for line in warned] == [("echo/0", text)] * 2
        assert value(echo.node, "understudy_mailbox_refusals_total", "echo/0", "version") == 2
        assert echo.heard == ["a"]


async def test_an_actor_of_another_wire_version_is_told_of_and_sent_nothing() -> None:
    async with stage() as on:
        watcher = await on.host(Watcher, "watcher")
        watcher.watch("echo")
        later = Entry(
            role="echo", instance=0, incarnation=900, state=State.READY,
            node="n", host="h", pid=1, wire=WIRE_VERSION + 1,
        )  # fmt: skip

        with capture_logs() as said:
            on.store.write(later)
            on.store.write(later)
            await settle()

        assert watcher.seen == []
        assert value(watcher.node, "understudy_wire_version_mismatches") == 1
        [warned] = [line for line in said if line["event"] == "wire_version_differs"]
        assert (warned["theirs"], warned["ours"]) == (WIRE_VERSION + 1, WIRE_VERSION)
        with pytest.raises(NoSuchActor):
            watcher.tell("echo", Note("a"))


async def test_a_node_tells_of_its_servers_its_actors_and_its_process() -> None:
    async with stage() as on:
        node = await on.node(Hosted(actor=Echo, role="echo"), Hosted(actor=Watcher, role="seer"))

        assert value(node, "understudy_plane_connected", "nats") == 1
        assert value(node, "understudy_plane_connected", "etcd") == 1
        assert value(node, "process_cpu_seconds_total") > 0
        assert value(node, "process_resident_memory_bytes") > 1e6
        life = str(node.cells[0].entry.incarnation)
        assert value(node, "understudy_actor_info", "echo/0", "echo", life, "ready") == 1


async def test_every_family_has_a_help_text_and_an_own_prefix() -> None:
    async with stage() as on:
        node = await on.node(Hosted(actor=Echo, role="echo"))
        families: tuple[Family, ...] = node.metrics.collect()

    assert len(families) > 10
    for family in families:
        assert family.help.endswith("."), family.name
        assert family.name.startswith(("understudy_", "process_")), family.name
