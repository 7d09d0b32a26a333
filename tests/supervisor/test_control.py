from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from actors.runtime.link import Hello
from supervisor.calls import Accepted, Answer, Denied
from supervisor.child import Child
from supervisor.control import EVENTS_LIMIT, Control, Subscription
from supervisor.events import ChildReady, Stopping

DEADLINE_S = 10.0


class Owner:
    """Knows no child, and notes what it is told to do."""

    def __init__(self) -> None:
        self.stopped: list[bool] = []

    def find(self, hello: Hello) -> Child | None:
        return None

    def status(self) -> Answer:
        return Accepted()

    def stop(self, *, force: bool) -> None:
        self.stopped.append(force)

    async def restart(self, child: str) -> Answer:
        return Denied(why=f"no {child}")


Scenario = Callable[[Control, Path], Awaitable[None]]


def with_control(tmp_path: Path, scenario: Scenario) -> Owner:
    owner = Owner()

    async def run() -> None:
        control = Control(tmp_path / "s", owner)
        await control.start()
        try:
            async with asyncio.timeout(DEADLINE_S):
                await scenario(control, tmp_path / "s")
        finally:
            await control.close()

    asyncio.run(run())
    return owner


async def say(path: Path, line: bytes) -> list[bytes]:
    """What comes back until the connection ends."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(line)
    writer.write_eof()
    lines = (await reader.read()).splitlines()
    writer.close()
    await writer.wait_closed()
    return lines


def test_a_call_is_answered_once(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        assert await say(path, b'{"call":"Down","force":true}\n') == [b'{"answer":"Accepted"}']
        [denied] = await say(path, b'{"call":"Restart","id":"x"}\n')
        assert msgspec.json.decode(denied, type=Denied).why == "no x"

    assert with_control(tmp_path, scenario).stopped == [True]


def test_a_call_that_is_not_understood_is_denied_with_the_reason(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        [answer] = await say(path, b'{"call":"Dance"}\n')
        assert "not understood" in msgspec.json.decode(answer, type=Denied).why

    with_control(tmp_path, scenario)


def test_noise_and_strangers_are_disconnected_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        hello = Hello("ghost/0", 1, 1, 1)
        for line in (b"GET / HTTP/1.1\r\n", b"[]\n", b"", msgspec.json.encode(hello) + b"\n"):
            assert await say(path, line) == []
        assert await say(path, b'{"call":"GetStatus"}\n') == [b'{"answer":"Accepted"}']

    with_control(tmp_path, scenario)


def test_every_listener_gets_every_event_and_the_end(tmp_path: Path) -> None:
    async def scenario(control: Control, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"call":"Events"}\n')
        assert await reader.readline() == b'{"answer":"Accepted"}\n'
        control.tell(Stopping())
        await control.close()
        assert await reader.read() == b'{"event":"Stopping","force":false}\n'
        writer.close()
        await writer.wait_closed()

    with_control(tmp_path, scenario)


def test_a_listener_that_does_not_read_is_dropped_and_holds_nothing_up() -> None:
    async def scenario() -> int:
        subscription = Subscription()
        for run in range(EVENTS_LIMIT * 2):
            subscription.tell(ChildReady(id="a", run=run, took_s=0.1))
        told = 0
        while await subscription.next() is not None:
            told += 1
        return told

    assert asyncio.run(scenario()) == EVENTS_LIMIT


def test_only_the_user_can_reach_the_socket_and_it_is_gone_afterwards(tmp_path: Path) -> None:
    (tmp_path / "s").write_text("left by somebody")

    async def scenario(_control: Control, path: Path) -> None:
        mode = os.stat(path).st_mode  # noqa: PTH116 - nothing else runs here
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600

    with_control(tmp_path, scenario)
    assert not (tmp_path / "s").exists()
