"""What a node tells of itself."""

from __future__ import annotations

import pytest

from actors.runtime.errors import Refused
from actors.runtime.metrics import Family
from actors.runtime.node import Hosted, Node
from tests.actors.runtime.stage import Echo, Foreign, Note, Watcher, stage


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
