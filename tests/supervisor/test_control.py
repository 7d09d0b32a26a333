from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from actors.runtime.link import Beat, DrainOrder, Hello, decode
from actors.runtime.registry.local import LocalRegistry, LocalStore
from supervisor.calls import HISTORY_LIMIT, Accepted, Answer, Apply, Denied
from supervisor.child import Child
from supervisor.control import EVENTS_LIMIT, Control, Subscription
from supervisor.events import ChildReady, Stopping
from supervisor.layout import Layout
from supervisor.naming import Naming
from supervisor.recipe import Recipe

DEADLINE_S = 10.0


class Owner:
    """Knows no child, and notes what it is told to do."""

    naming = Naming(lambda: LocalRegistry(LocalStore()))

    def __init__(self) -> None:
        self.stopped: list[tuple[bool, bool]] = []
        self.asked: list[object] = []

    def find(self, hello: Hello) -> Child | None:
        return None

    async def metrics(self) -> str:
        return "seen_total 1\n"

    async def status(self) -> Answer:
        return Accepted()

    def stop(self, *, force: bool, drain: bool) -> None:
        self.stopped.append((force, drain))

    async def restart(self, name: str, *, rolling: bool) -> Answer:
        return Denied(why=f"no {name}{' to roll' if rolling else ''}")

    async def drain_child(self, child: str) -> Answer:
        self.asked.append(child)
        return Accepted()

    def set_log_level(self, name: str, level: str) -> Answer:
        self.asked.append((name, level))
        return Accepted()

    async def scale(self, name: str, replicas: int) -> Answer:
        self.asked.append((name, replicas))
        return Accepted()

    async def apply(self, call: Apply) -> Answer:
        self.asked.append(call)
        return Accepted()


Scenario = Callable[[Control, Path], Awaitable[None]]


def with_control(tmp_path: Path, scenario: Scenario, owner: Owner | None = None) -> Owner:
    owner = owner or Owner()

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

    assert with_control(tmp_path, scenario).stopped == [(True, True)]


def test_every_change_reaches_the_supervisor(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        for line in (
            b'{"call":"DrainChild","id":"a/0"}',
            b'{"call":"SetLogLevel","id":"b","level":"debug"}',
            b'{"call":"Scale","name":"a","replicas":3}',
            b'{"call":"Apply","path":"/f","text":"t","sets":["a=b"],"dry_run":true}',
            b'{"call":"Down","drain":false}',
        ):
            assert await say(path, line + b"\n") == [b'{"answer":"Accepted"}']
        [denied] = await say(path, b'{"call":"Restart","id":"x","rolling":true}\n')
        assert msgspec.json.decode(denied, type=Denied).why == "no x to roll"

    owner = with_control(tmp_path, scenario)

    applied = Apply(path="/f", text="t", sets=("a=b",), dry_run=True)
    assert owner.asked == ["a/0", ("b", "debug"), ("a", 3), applied]
    assert owner.stopped == [(False, False)]


def test_a_call_that_is_not_understood_is_denied_with_the_reason(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        [answer] = await say(path, b'{"call":"Dance"}\n')
        assert "not understood" in msgspec.json.decode(answer, type=Denied).why

    with_control(tmp_path, scenario)


class Broken(Owner):
    """Has a defect."""

    async def status(self) -> Answer:
        raise KeyError("generation/0")


def test_a_call_that_fails_is_answered_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        [answer] = await say(path, b'{"call":"GetStatus"}\n')
        denied = msgspec.json.decode(answer, type=Denied)
        assert denied.why == "it failed: KeyError: 'generation/0'"
        assert await say(path, b'{"call":"Down"}\n') == [b'{"answer":"Accepted"}']

    with_control(tmp_path, scenario, Broken())


class Parent(Owner):
    """Has one child."""

    def __init__(self, tmp_path: Path) -> None:
        super().__init__()
        self.alive = 0
        self.child = Child(
            "a/0",
            1,
            Recipe(argv=(), env={}, cwd="/"),
            Layout(tmp_path, {}),
            on_process=lambda _: None,
            on_link=lambda _: None,
            on_ready=lambda _: None,
            on_alive=self.lives,
            on_exit=lambda *_: None,
        )

    def find(self, hello: Hello) -> Child | None:
        return self.child

    def lives(self, _child: Child) -> None:
        self.alive += 1


def test_a_note_of_another_release_does_not_cost_a_node_its_link(tmp_path: Path) -> None:
    parent = Parent(tmp_path)
    beat = msgspec.json.encode(Beat(progress=1, busy=False, lag_s=0.0))

    async def scenario(_control: Control, path: Path) -> None:
        hello = msgspec.json.encode(Hello("a/0", 1, 1, 1))
        await say(path, b"\n".join([hello, beat, b'{"note":"Sing","key":"C"}', b"{]", beat, b""]))

    with_control(tmp_path, scenario, parent)
    assert parent.alive == 2


def test_noise_and_strangers_are_disconnected_and_the_next_one_is_served(tmp_path: Path) -> None:
    async def scenario(_control: Control, path: Path) -> None:
        hello = Hello("ghost/0", 1, 1, 1)
        for line in (b"GET / HTTP/1.1\r\n", b"[]\n", b""):
            assert await say(path, line) == []
        # A node that nobody looks after is not left to try for ever: it is told to leave.
        told = await say(path, msgspec.json.encode(hello) + b"\n")
        assert [decode(line) for line in told] == [DrainOrder()]
        assert await say(path, b'{"call":"GetStatus"}\n') == [b'{"answer":"Accepted"}']

    with_control(tmp_path, scenario)


def test_every_listener_gets_every_event_and_the_end(tmp_path: Path) -> None:
    async def scenario(control: Control, path: Path) -> None:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"call":"Events"}\n')
        assert await reader.readline() == b'{"answer":"Accepted"}\n'
        control.tell(Stopping())
        await control.close()
        assert await reader.read() == b'{"event":"Stopping","force":false,"at":0.0}\n'
        writer.close()
        await writer.wait_closed()

    with_control(tmp_path, scenario)


def test_what_has_happened_is_told_before_what_happens(tmp_path: Path) -> None:
    def ready(run: int) -> ChildReady:
        return ChildReady(id="a", run=run, took_s=0.1)

    async def scenario(control: Control, _path: Path) -> None:
        for run in range(5):
            control.tell(ready(run))
        with control.subscribe(2) as subscription:
            control.tell(ready(5))
            assert [await subscription.next() for _ in range(3)] == [ready(3), ready(4), ready(5)]
        control.tell(ready(6))
        subscription.end()
        assert await subscription.next() is None

    with_control(tmp_path, scenario)


def test_who_does_not_follow_is_told_the_past_and_the_end(tmp_path: Path) -> None:
    async def scenario(control: Control, path: Path) -> None:
        for run in range(HISTORY_LIMIT + 5):
            control.tell(ChildReady(id="a", run=run, took_s=0.1))
        accepted, *told = await say(path, b'{"call":"Events","recent":9999,"follow":false}\n')
        assert accepted == b'{"answer":"Accepted"}'
        runs = [msgspec.json.decode(line, type=ChildReady).run for line in told]
        assert runs == list(range(5, HISTORY_LIMIT + 5))

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
