"""The etcd registry against the real server, also when that fails or forgets."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aetcd
import msgspec
import pytest

from actors.runtime.clock import LoopClock
from actors.runtime.errors import NameTaken, PlaneUnavailable
from actors.runtime.pids import process_started
from actors.runtime.registry.base import Deleted, Entry, Listed, Observation, Put, Records, State
from actors.runtime.registry.etcd import FIRST_DAY_S, EtcdRegistry
from actors.runtime.registry.etcd_client import EtcdClient
from tests.actors.runtime.real import RealStage, observed, real_stage
from tests.actors.runtime.stage import Echo, Note, Watcher
from tests.plane import Plane, free_port

pytestmark = pytest.mark.process


def entry(role: str = "echo", *, pid: int | None = None, host: str | None = None) -> Entry:
    pid = os.getpid() if pid is None else pid
    return Entry(
        role=role,
        instance=0,
        node="n",
        host=host or socket.gethostname(),
        pid=pid,
        pid_started=process_started(pid),
    )


def is_put_of(observation: Observation, wanted: Entry) -> bool:
    return isinstance(observation, Put) and observation.entry == wanted


def lists(observation: Observation, wanted: Entry) -> bool:
    return isinstance(observation, Listed) and wanted in observation.entries


@asynccontextmanager
async def etcd_client(plane: Plane) -> AsyncIterator[aetcd.Client]:
    """A client of the test's own, to break things with."""
    client = EtcdClient(plane.etcd_settings)
    try:
        yield client
    finally:
        await client.close()


async def test_an_entry_is_seen_by_others_until_its_registry_closes(plane: Plane) -> None:
    async with real_stage(plane) as opened, observed(opened.registry()) as view:
        registry = opened.registry()
        async with observed(registry):
            claimed = await registry.claim(entry())
            ready = msgspec.structs.replace(claimed, state=State.READY)
            await registry.update(ready)
            await view.until(lambda news: is_put_of(news, ready))

        assert await view.until(lambda news: isinstance(news, Deleted)) == Deleted("echo/0")
        assert claimed.incarnation > 0


async def test_a_name_held_by_a_live_stranger_is_taken(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        registry, other = opened.registry(), opened.registry()
        async with observed(registry), observed(other):
            await registry.claim(entry(host="elsewhere"))

            with pytest.raises(NameTaken, match="echo/0 is taken by n"):
                await other.claim(entry())


async def test_a_successor_that_knows_of_the_end_takes_the_name_at_once(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        registry, other = opened.registry(), opened.registry()
        async with observed(registry), observed(other):
            first = await registry.claim(entry(host="elsewhere"))
            second = await other.claim(entry(), above=first.incarnation + 1000)

            assert second.incarnation > first.incarnation + 1000


async def test_a_dead_process_of_this_host_gives_its_name_up(plane: Plane) -> None:
    child = await asyncio.create_subprocess_exec("sleep", "60")
    theirs = entry(pid=child.pid)
    child.kill()
    await child.wait()
    async with real_stage(plane) as opened:
        registry, other = opened.registry(), opened.registry()
        async with observed(registry), observed(other):
            first = await registry.claim(theirs, above=10**9)
            second = await other.claim(entry())

            assert second.incarnation > first.incarnation > 10**9


async def test_a_predecessor_that_still_runs_does_not_write_over_its_successor(
    plane: Plane,
) -> None:
    async with real_stage(plane) as opened, observed(opened.registry()) as view:
        registry, other = opened.registry(), opened.registry()
        async with observed(other):
            async with observed(registry):
                first = await registry.claim(entry())
                second = await other.claim(entry(), above=first.incarnation)
                await registry.update(msgspec.structs.replace(first, state=State.READY))
                assert registry._mine == {}
            # Its lease has gone with it; the entry is its successor's.
            ready = msgspec.structs.replace(second, state=State.READY)
            await other.update(ready)
            await view.until(lambda news: is_put_of(news, ready))

            assert Deleted("echo/0") not in view.observations
            last = [news.entry for news in view.observations if isinstance(news, Put)]
            assert first not in last[last.index(second) :]


async def test_a_deleted_key_of_a_live_entry_comes_back(plane: Plane) -> None:
    async with real_stage(plane) as opened, etcd_client(plane) as client:
        registry = opened.registry()
        async with observed(opened.registry()) as view, observed(registry):
            claimed = await registry.claim(entry())
            await view.until(lambda news: is_put_of(news, claimed))

            await client.delete(registry._key("echo/0"))

            await view.until(lambda news: news == Deleted("echo/0"))
            await view.until(lambda news: is_put_of(news, claimed))


async def test_the_entries_of_a_revoked_lease_come_back_under_a_new_one(plane: Plane) -> None:
    async with real_stage(plane) as opened, etcd_client(plane) as client:
        registry = opened.registry()
        async with observed(opened.registry()) as view, observed(registry):
            claimed = await registry.claim(entry())
            await view.until(lambda news: is_put_of(news, claimed))
            lease = registry._lease_id

            await client.revoke_lease(lease)

            await view.until(lambda news: is_put_of(news, claimed))
            assert registry._lease_id != lease


async def test_serving_goes_on_while_etcd_is_dead(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.monitor(echo.address)
        async with observed(opened.registry()) as view:
            with plane.etcd.killed():
                assert await watcher.ask("echo", Note("hi"), reply=str) == "hi!"
                echo.published = {"said": "during the outage"}
                echo.publish_meta()
                assert await watcher.ask("echo", Note("yo"), reply=str) == "yo!"
            await view.until(lambda news: _tells(news, b"outage"))

        assert watcher.seen == []
        assert await watcher.ask("echo", Note("after"), reply=str) == "after!"


def _tells(news: Observation, meta: bytes) -> bool:
    """Whether this, a put or a list, carries an entry with such metadata."""
    match news:
        case Put(entry):
            return meta in bytes(entry.meta)
        case Listed(entries):
            return any(meta in bytes(entry.meta) for entry in entries)
    return False


@pytest.mark.deadline(45)
async def test_entries_are_written_again_after_etcd_lost_everything(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        echo = await opened.host(Echo, "echo")
        watcher = await opened.host(Watcher, "w")
        watcher.watch("echo")
        watcher.monitor(echo.address)
        mine = echo.node.cells[0].entry
        plane.etcd.kill()
        shutil.rmtree(plane.etcd_directory)
        plane.etcd.start()

        async with observed(opened.registry()) as view:
            await view.until(lambda news: is_put_of(news, mine) or lists(news, mine))

        assert watcher.downs() == []
        assert watcher.directory.find("echo/0") == mine


async def test_an_entry_nobody_can_read_is_skipped(plane: Plane) -> None:
    async with real_stage(plane) as opened, etcd_client(plane) as client:
        registry = opened.registry()
        await client.put(registry._key("broken/0"), b'{"role": "\xff"}')
        async with observed(registry) as view:
            await client.put(registry._key("broken/1"), b"no JSON")
            claimed = await registry.claim(entry())
            await view.until(lambda news: is_put_of(news, claimed))

            assert view.observations[0] == Listed(())
        await client.delete_prefix(registry._prefix)


async def test_etcd_out_of_reach_is_an_unavailable_plane(plane: Plane) -> None:
    settings = msgspec.structs.replace(
        plane.etcd_settings, urls=(f"http://127.0.0.1:{free_port()}",), connect_timeout_s=0.3
    )
    registry = EtcdRegistry(settings, "nowhere")

    with pytest.raises(PlaneUnavailable, match="etcd at http"):
        await registry.start(lambda _: None)
    await registry.close()


async def test_claims_of_one_name_at_the_same_time_have_one_winner(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        registries = [opened.registry() for _ in range(4)]
        for registry in registries:
            await registry.start(lambda _: None)

        outcomes = await asyncio.gather(
            *(registry.claim(entry()) for registry in registries), return_exceptions=True
        )

        assert sum(isinstance(outcome, Entry) for outcome in outcomes) == 1
        assert sum(isinstance(outcome, NameTaken) for outcome in outcomes) == 3
        for registry in registries:
            await registry.close()


class Wall(LoopClock):
    """A host's clock, set by hand."""

    def __init__(self, wall_s: float) -> None:
        self.wall_s = wall_s

    def wall(self) -> float:
        return self.wall_s


async def _live_and_leave(opened: RealStage, clock: Wall, *, above: int = 0) -> int:
    """Claim a name and give it up; return the incarnation."""
    registry = EtcdRegistry(opened.plane.etcd_settings, opened.namespace, clock=clock)
    async with observed(registry):
        return (await registry.claim(entry(), above=above)).incarnation


async def test_lives_go_on_counting_after_etcd_lost_all_it_knew_of_them(plane: Plane) -> None:
    async with real_stage(plane) as opened, etcd_client(plane) as client:
        clock = Wall(FIRST_DAY_S + 1000.0)
        first = [await _live_and_leave(opened, clock) for _ in range(5)]
        await client.delete_prefix(f"/{opened.namespace}/".encode())
        clock.wall_s += 1.0

        assert await _live_and_leave(opened, clock) > max(first)
        assert first == list(range(first[0], first[0] + 5))


async def test_lives_go_on_counting_when_the_clock_goes_back(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        here, elsewhere = Wall(FIRST_DAY_S + 1000.0), Wall(FIRST_DAY_S + 10.0)
        lives = [await _live_and_leave(opened, clock) for clock in (here, elsewhere)]
        here.wall_s -= 3600.0
        lives.append(await _live_and_leave(opened, here))

        assert lives == sorted(set(lives))


async def test_records_are_seen_by_all_and_outlive_their_writer(plane: Plane) -> None:
    async with real_stage(plane) as opened:
        registry, other = opened.registry(), opened.registry()
        seen: asyncio.Queue[Records] = asyncio.Queue()
        other.on_records = seen.put_nowait
        async with observed(other):
            async with observed(registry):
                assert await registry.record("kind/a/b", b"1")
                assert not await registry.record("kind/a/b", b"2")
                assert await registry.record("kind/a/b", b"3", replace=True)
                assert [await seen.get() for _ in range(3)] == [
                    {},
                    {"kind/a/b": b"1"},
                    {"kind/a/b": b"3"},
                ]

            later = opened.registry()
            later.on_records = seen.put_nowait
            async with observed(later):
                assert await seen.get() == {"kind/a/b": b"3"}
            assert await other.erase("kind/a/b")
            assert await seen.get() == {}
            assert not await other.erase("kind/a/b")


async def test_records_are_read_again_after_an_outage(plane: Plane) -> None:
    async with real_stage(plane) as opened, observed(opened.registry()) as view:
        del view
        registry, other = opened.registry(), opened.registry()
        seen: asyncio.Queue[Records] = asyncio.Queue()
        registry.on_records = seen.put_nowait
        async with observed(registry), observed(other):
            assert await seen.get() == {}
            async with etcd_client(plane) as client:
                # The watch and the lease end; the next list has what was written meanwhile.
                await client.revoke_lease(registry._lease_id)
                await other.record("kind/a", b"1")
            while await seen.get() != {"kind/a": b"1"}:
                pass
