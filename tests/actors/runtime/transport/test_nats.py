"""The NATS transport against the real server, also when that fails."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from actors.runtime.actor import Down, Returned
from actors.runtime.address import Address
from actors.runtime.errors import AskTimeout, NoSuchActor, PlaneUnavailable, Refused
from actors.runtime.message import encode
from actors.runtime.transport.nats import NatsTransport, redact
from tests.actors.runtime.real import ask_until_answered, real_stage
from tests.actors.runtime.stage import Decline, Echo, Fail, Note, Watcher
from tests.plane import Plane, free_port

pytestmark = pytest.mark.process
MAX_PAYLOAD = 1024 * 1024


async def test_two_nodes_ask_tell_and_monitor(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)

        assert await watcher.ask("echo", Note("hi"), reply=str) == "hi!"
        for number in range(3):
            watcher.tell(echo.address, Note(str(number)))
        assert await watcher.ask(echo.address, Note("last"), reply=str) == "last!"
        await echo.node.stop()
        await watcher.until(1)

        assert watcher.seen == [Down(echo.address, "left the registry")]
        assert echo.heard == ["hi", "0", "1", "2", "last"]


async def test_nobody_there_is_known_at_once(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        watcher = await opened.host(Watcher, "w")
        nobody = Address("nobody", 0, 3)

        with pytest.raises(NoSuchActor, match="nobody/0#3: nobody listens there"):
            await watcher.ask(nobody, Note("hi"), reply=str, timeout_s=20)
        watcher.tell(nobody, Note("hi"))
        [returned] = await watcher.until(1)

        assert returned == Returned(Note("hi"), nobody, "nobody listens there")


async def test_a_frame_up_to_the_servers_limit_passes_and_one_beyond_bounces(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        overhead = len(encode(Note("x" * 70_000))) - 70_000
        fits = Note("x" * (MAX_PAYLOAD - overhead))
        beyond = Note("x" * (MAX_PAYLOAD - overhead + 1))

        watcher.tell(echo.address, fits)
        watcher.tell(echo.address, beyond)
        with pytest.raises(Refused, match="over the transport's limit of 1048576"):
            await watcher.ask(echo.address, beyond, reply=str)
        await watcher.until(1)

        assert await watcher.ask(echo.address, Note("on"), reply=str) == "on!"
        assert echo.heard == [fits.text, "on"]
        [returned] = watcher.seen
        assert isinstance(returned, Returned)
        assert returned.message == beyond
        assert "1048577 bytes are over" in returned.reason


async def test_bytes_that_are_no_message_hurt_nobody(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        subject = f"{opened.namespace}.a.echo.0"
        header = encode(None)[:10]
        unreadable = [b"", b"\x01", header + b"\xc1", header + b"\x92\xa4Note\xa1\x80"]
        for frame in [*unreadable, header + b"\x91" * 5000]:
            watcher.node.transport.publish(subject, frame)

        assert await watcher.ask(echo.address, Note("on"), reply=str) == "on!"
        assert echo.node.cells[0].refusals == {"malformed": len(unreadable) + 1}


async def test_asks_work_again_after_the_server_was_killed(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)
        with plane.nats.killed():
            with pytest.raises(AskTimeout):
                await watcher.ask(echo.address, Note("lost?"), reply=str, timeout_s=0.2)
            during = watcher.node.transport.health

        assert await ask_until_answered(watcher, echo.address) == "again!"
        assert (during, watcher.node.transport.health) == ("lost", "connected")
        assert watcher.seen == []


async def test_asks_work_again_after_the_server_hung(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        with plane.nats.stopped(), pytest.raises(AskTimeout):
            await watcher.ask(echo.address, Note("later"), reply=str, timeout_s=0.2)

        assert await ask_until_answered(watcher, echo.address) == "again!"
        assert echo.heard[0] == "later"


async def test_tells_of_an_outage_are_kept_in_order_and_sent_afterwards(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        with plane.nats.killed():
            with pytest.raises(AskTimeout):
                await watcher.ask(echo.address, Decline(""), reply=str, timeout_s=0.1)
            for number in range(3):
                watcher.tell(echo.address, Note(str(number)))

        await ask_until_answered(watcher, echo.address)
        told = [text for text in echo.heard if text != "again"]
        # At most once: the server may be back before the echo has subscribed again.
        assert told == ["0", "1", "2"][len(["0", "1", "2"]) - len(told) :]


async def test_a_failing_handler_over_the_wire_brings_its_traceback(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")

        with pytest.raises(Exception, match="KeyError: 'x'") as caught:
            await watcher.ask(echo.address, Fail("x"), reply=str)

        assert "in fail" in getattr(caught.value, "remote_traceback", "")


async def test_a_wrong_token_and_a_closed_port_are_an_unavailable_plane(plane: Plane) -> None:
    wrong = msgspec.structs.replace(plane.nats_settings, token="wrong", connect_timeout_s=0.5)
    closed = msgspec.structs.replace(
        plane.nats_settings,
        urls=(f"nats://user:secret@127.0.0.1:{free_port()}",),
        connect_timeout_s=0.5,
    )
    for settings in (wrong, closed):
        transport = NatsTransport(settings, "n")
        with pytest.raises(PlaneUnavailable, match="NATS at nats://127") as caught:
            await transport.start()
        assert "secret" not in str(caught.value)
        await transport.close()


async def test_flush_returns_when_everything_is_written(plane: Plane) -> None:
    transport, other = (NatsTransport(plane.nats_settings, name) for name in "ab")
    await transport.start()
    await other.start()
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    await other.subscribe("flush.test", lambda frame, _: arrived.put_nowait(frame))
    for number in range(100):
        transport.publish("flush.test", b"%d" % number)
    await transport.flush(5)
    await transport.close()

    assert [await arrived.get() for _ in range(100)] == [b"%d" % number for number in range(100)]
    await other.close()


def test_a_url_is_shown_without_its_password() -> None:
    assert redact("nats://user:pass@host:4222") == "nats://host:4222"
    assert redact("host:4222") == "host:4222"
