"""The NATS client's own parts: who it says it is, and where it looks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from actors.runtime.transport.nats_client import Client, Identity, NatsRefused, Server
from actors.runtime.transport.nats_wire import ServerInfo
from tests.plane import Plane, free_port


@asynccontextmanager
async def connected(plane: Plane, *before: Server) -> AsyncIterator[Client]:
    """A client of the plane's server, which comes after these in its list."""
    [url] = plane.nats_settings.urls
    identity = Identity("n", token=plane.nats_settings.token)
    client = Client([*before, Server.parse(url)], identity)
    await client.start(20.0)
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("nats://h:5", Server("h", 5)),
        ("h", Server("h", 4222)),
        ("h:6", Server("h", 6)),
        ("tls://u:p%20w@h", Server("h", 4222, "u", "p w", tls=True)),
        ("nats://token@[::1]:7", Server("::1", 7, "token")),
    ],
)
def test_an_address_is_read(url: str, server: Server) -> None:
    assert Server.parse(url) == server


@pytest.mark.parametrize("url", ["ws://h:1", "http://h", "nats://", "nats://h:port"])
def test_what_is_no_address_of_nats_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        Server.parse(url)


def test_what_the_url_says_of_us_goes_before_the_settings() -> None:
    identity = Identity("n", "user", "password")
    plain = identity.connect(Server("h", 1), ServerInfo(), tls=False)
    named = identity.connect(Server("h", 1, "other", "pw"), ServerInfo(), tls=False)
    token = identity.connect(Server("h", 1, "secret"), ServerInfo(), tls=True)

    assert (plain.user, plain.password, plain.auth_token) == ("user", "password", None)
    assert (named.user, named.password) == ("other", "pw")
    assert (token.user, token.auth_token, token.tls_required) == (None, "secret", True)
    assert b'"pass":"pw"' in msgspec.json.encode(named)


def test_credentials_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    with pytest.raises(NatsRefused, match=r"none\.creds"):
        Identity("n", credentials=str(tmp_path / "none.creds")).connect(
            Server("h", 1), ServerInfo(nonce="x"), tls=False
        )


@pytest.mark.process
async def test_a_second_server_is_used_when_the_first_is_not_there(plane: Plane) -> None:
    async with connected(plane, Server("127.0.0.1", free_port())) as client:
        heard: asyncio.Queue[bytes] = asyncio.Queue()
        number = await client.subscribe("twice", lambda *parts: heard.put_nowait(parts[-1]))
        client.publish("twice", "", b"one")
        assert await asyncio.wait_for(heard.get(), 20) == b"one"
        client.unsubscribe(number)
        client.publish("twice", "", b"two")
        await client.round_trip()
        assert heard.empty()


@pytest.mark.process
async def test_a_receiver_that_breaks_costs_nobody_else_a_message(plane: Plane) -> None:
    heard: list[bytes] = []

    def receive(*parts: bytes) -> None:
        heard.append(parts[-1])
        if len(heard) == 1:
            raise KeyError("a defect")

    async with connected(plane) as client:
        await client.subscribe("broken", receive)
        for payload in (b"1", b"2"):
            client.publish("broken", "", payload)
        await client.round_trip()

        assert heard == [b"1", b"2"]


@pytest.mark.process
async def test_what_many_publish_at_once_is_in_force_after_an_outage(plane: Plane) -> None:
    lost, back = asyncio.Event(), asyncio.Event()
    heard: list[bytes] = []
    async with connected(plane) as client:
        client.on_lost, client.on_back = lost.set, back.set
        await client.subscribe("again", lambda *parts: heard.append(parts[-1]))
        with plane.nats.killed():
            await asyncio.wait_for(lost.wait(), 20)
            for number in range(1000):
                client.publish("again", "", b"%d" % number)
            assert client.waiting == 1000
        await asyncio.wait_for(back.wait(), 20)
        await client.round_trip()

        assert heard == [b"%d" % number for number in range(1000)]
        assert (client.waiting, client.waiting_bytes) == (0, 0)


async def test_who_subscribes_while_the_server_greets_us_is_subscribed_too() -> None:
    """A server that takes its time: the real one is too quick to be met in the middle of it."""
    said: asyncio.Queue[bytes] = asyncio.Queue()
    welcome = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload":1000}\r\n')
        while line := await reader.readline():
            said.put_nowait(line)
            if line == b"PING\r\n":
                await welcome.wait()
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = Client([Server("127.0.0.1", port)], Identity("n"))
    starting = asyncio.create_task(client.start(20.0))
    try:
        async with asyncio.timeout(20):
            while await said.get() != b"PING\r\n":
                pass
            subscribing = asyncio.create_task(client.subscribe("late", lambda *_: None))
            await asyncio.sleep(0)
            welcome.set()
            await starting
            assert await subscribing == 1
            assert await said.get() == b"SUB late 1\r\n"
    finally:
        await client.close()
        server.close()
        await server.wait_closed()
