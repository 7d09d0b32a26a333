"""The supervisor itself dies: what goes on, what the next one takes over, and what ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from supervisor.calls import ChildRow
from supervisor.leftovers import end_leftovers
from supervisor.runstate import read_run_state, write_run_state
from tests.supervisor.faulty import write_faulty
from tests.supervisor.live import DEADLINE_S, Live, processes_of, running, supervise
from tests.supervisor.test_watching import FAULTY, WhoAreYou, a_node_beside, ask_pid

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's"),
]
OURS = ("supervisor/guard", "nats", "etcd", "faulty/0", "other/0")
"""All that can be taken over."""
OTHER = "  - {name: other, actor: 'faulty:Faulty', drain: 0s}\n"


def topology(tmp_path: Path, *, head: str = "", entry: str = "", more: str = OTHER) -> Path:
    return write_faulty(tmp_path, head=head, entry=entry, more=more)


def rows(live: Live) -> dict[str, ChildRow]:
    return {row.id: row for row in live.status().children if row.pid and row.id in OURS}


@contextmanager
def killed(base: Path, *arguments: str) -> Iterator[tuple[Live, dict[str, ChildRow]]]:
    """What a supervisor has left that was killed when everything was up."""
    with running(base, *arguments) as live:
        live.until("ready")
        before = rows(live)
        live.process.kill()
        live.wait()
        try:
            yield live, before
        finally:
            left = read_run_state(live.layout("faulty").run)
            if left is not None:  # nobody took it over, or the test has failed
                asyncio.run(end_leftovers(left.children, grace_s=1.0))
            assert processes_of(base) == []


class Reign:
    """Supervisors of one topology, one after the other; what they look after outlives them."""

    def __init__(self, base: Path, file: str) -> None:
        self.base = base
        self.file = file
        self.live: Live
        self._context: contextlib.AbstractContextManager[object] = contextlib.nullcontext()

    def begin(self) -> Live:
        """The next one, just started."""
        self._context.__exit__(None, None, None)
        self._context = begun = running(self.base, self.file)
        self.live = begun.__enter__()
        return self.live

    def fall(self) -> dict[str, ChildRow]:
        """Have the present one killed; what it has left."""
        before = rows(self.live)
        self.live.process.kill()
        self.live.wait()
        return before

    def end(self) -> None:
        """Have the last one stop everything."""
        if self.live.process.poll() is not None:  # a test has failed
            self.begin().until("ready")
        self._context.__exit__(None, None, None)
        assert processes_of(self.base) == []


@pytest.fixture(scope="module")
def reigns(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reign]:
    place = tmp_path_factory.mktemp("reign")
    reign = Reign(place / "state", str(topology(place)))
    reign.begin().until("ready")
    yield reign
    reign.end()


@pytest.fixture
def reign(reigns: Reign) -> Reign:
    """Everything is up, and somebody looks after it, whatever became of the test before."""
    if reigns.live.process.poll() is not None:
        reigns.begin().until("ready")
    return reigns


def still(row: ChildRow) -> tuple[object, ...]:
    """What is the same as long as it is the same life."""
    return row.pid, [(actor.name, actor.incarnation) for actor in row.actors]


def test_actors_serve_on_and_the_next_supervisor_takes_everything_over(tmp_path: Path) -> None:
    base, file = tmp_path / "state", str(topology(tmp_path))
    with killed(base, file) as (first, before):
        assert ask_pid(first) == before["faulty/0"].pid

        with running(base, file) as second:
            second.until("ready")
            after = rows(second)

            assert {id_: still(row) for id_, row in after.items()} == {
                id_: still(row) for id_, row in before.items()
            }
            assert set(after) == set(OURS)
            assert {row.state for row in after.values()} == {"running"}
            assert ask_pid(second) == before["faulty/0"].pid
            assert second.status().nats == second.node_spec("faulty/0", "faulty").nats.urls
            adopted = [x["child"] for x in second.journal if x["event"] == "child_adopted"]
            assert adopted == list(OURS)
            second.process.send_signal(signal.SIGINT)
            assert second.wait() == 0
        assert processes_of(base) == []


def test_asks_go_on_while_the_supervisor_is_killed_and_succeeded(tmp_path: Path) -> None:
    base, file = tmp_path / "state", str(topology(tmp_path))
    with running(base, file) as first:
        first.until("ready")

        async def ask_through() -> set[int]:
            """One ask after the other, none of which may fail."""
            pids: set[int] = set()
            async with a_node_beside(first) as node:

                async def ask() -> None:
                    pids.add(await node.ask(FAULTY, WhoAreYou(), reply=int, timeout_s=DEADLINE_S))

                await ask()
                first.process.kill()
                with running(base, file) as second:
                    ready = asyncio.create_task(asyncio.to_thread(second.until, "ready"))
                    while not ready.done():
                        await ask()
                    await ready
                    await ask()
                    second.process.send_signal(signal.SIGTERM)
                    await asyncio.to_thread(second.wait)
            return pids

        pid = first.pid("faulty/0")
        assert asyncio.run(ask_through()) == {pid}
    assert processes_of(base) == []


def test_what_died_meanwhile_is_started_and_the_rest_goes_on(reign: Reign) -> None:
    before = reign.fall()
    for id_ in ("faulty/0", "nats"):
        os.kill(pid_of(before[id_]), signal.SIGKILL)

    second = reign.begin()
    second.until("ready")
    after = rows(second)

    assert after["faulty/0"].pid != before["faulty/0"].pid
    assert life(after["faulty/0"]) > life(before["faulty/0"])
    assert after["nats"].pid != before["nats"].pid
    assert still(after["other/0"]) == still(before["other/0"])
    assert still(after["etcd"]) == still(before["etcd"])
    assert ask_pid(second) == after["faulty/0"].pid


def test_a_child_is_watched_and_restarted_after_it_was_taken_over(reign: Reign) -> None:
    before = reign.fall()
    second = reign.begin()
    second.until("ready")

    os.kill(pid_of(before["faulty/0"]), signal.SIGKILL)
    assert "unseen how" in second.until("child_failed", child="faulty/0")["reason"]
    second.until("child_ready", child="faulty/0")

    os.kill(pid_of(before["other/0"]), signal.SIGSTOP)
    reason = second.until("child_failed", child="other/0")["reason"]
    assert reason == "hung: no heartbeat for 1.5 s"
    second.until("child_ready", child="other/0")
    assert rows(second)["nats"].pid == before["nats"].pid


@pytest.mark.parametrize("child", ["faulty/0", "nats"])
def test_what_is_frozen_when_it_is_taken_over_is_replaced(reign: Reign, child: str) -> None:
    before = reign.fall()
    os.kill(pid_of(before[child]), signal.SIGSTOP)

    second = reign.begin()
    assert second.until("child_failed", child=child)["reason"].startswith("hung")
    second.until("ready")
    after = rows(second)

    assert after[child].pid != before[child].pid
    assert still(after["other/0"]) == still(before["other/0"])
    assert ask_pid(second) == after["faulty/0"].pid


def test_what_would_be_started_otherwise_today_is_replaced(tmp_path: Path) -> None:
    """Another file for the namespace: one node changed, one gone, one new."""
    base, file = tmp_path / "state", str(topology(tmp_path))
    with killed(base, file) as (_, before):
        changed = topology(
            tmp_path,
            entry="env: {COLOUR: red}",
            more="  - {name: fresh, actor: 'faulty:Faulty', drain: 0s}\n",
        )

        with running(base, str(changed)) as second:
            second.until("ready")

            assert second.pid("faulty/0") != before["faulty/0"].pid
            assert second.pid("fresh/0")
            assert {id_: still(row) for id_, row in rows(second).items() if id_ != "faulty/0"} == {
                id_: still(before[id_]) for id_ in ("supervisor/guard", "nats", "etcd")
            }
            ended = "had left running: faulty/0, other/0"
            assert any(ended in line for line in second.said)


def test_a_recycled_pid_is_neither_taken_over_nor_ended(reign: Reign) -> None:
    before = reign.fall()
    path = reign.live.layout("faulty").run
    state = read_run_state(path)
    assert state is not None
    os.kill(pid_of(before["faulty/0"]), signal.SIGKILL)
    # The pid of a process that has nothing to do with it: this one.
    forged = tuple(
        msgspec.structs.replace(child, pid=os.getpid()) if child.name == "faulty/0" else child
        for child in state.children
    )
    write_run_state(path, msgspec.structs.replace(state, children=forged))

    second = reign.begin()
    second.until("ready")

    assert second.pid("faulty/0") != os.getpid()


def test_a_second_supervisor_is_refused_while_the_first_has_taken_over(reign: Reign) -> None:
    reign.fall()
    second = reign.begin()
    second.until("ready")

    done = supervise(reign.base, reign.file)

    assert done.returncode == 1
    assert f"pid {second.process.pid}" in done.stderr


def test_a_successor_with_a_wrong_topology_leaves_everything_as_it_is(reign: Reign) -> None:
    before = reign.fall()
    done = supervise(reign.base, reign.file, "--set", "children.faulty.options.fifi=x")

    assert done.returncode == 2
    assert ask_pid(reign.live) == before["faulty/0"].pid
    second = reign.begin()
    second.until("ready")
    assert still(rows(second)["faulty/0"]) == still(before["faulty/0"])


def test_supervisors_killed_while_they_start_leave_nothing_doubled(tmp_path: Path) -> None:
    """Each at another moment; some have started what they had no time to write down."""
    base, file = tmp_path / "state", str(topology(tmp_path))
    for moment in ("zygote/own", "nats", "etcd", "faulty/0", "other/0"):
        with running(base, file) as live:
            live.until_first(moment)
            live.process.kill()
            live.wait()

    with running(base, file) as last:
        last.until("ready")

        assert set(rows(last)) == set(OURS)
        servers = [line for line in processes_of(base) if "nats-server" in line or "/etcd " in line]
        assert len(servers) == 2
    assert processes_of(base) == []


@pytest.mark.parametrize("frozen", [False, True])
def test_without_a_successor_everything_leaves_in_the_end(tmp_path: Path, frozen: bool) -> None:
    """A frozen node cannot leave by itself, nor can NATS and etcd."""
    base = tmp_path / "state"
    file = topology(tmp_path, head="orphan_timeout: 1s", entry="shutdown: 1s")
    with running(base, str(file)) as live:
        live.until("ready")
        before = rows(live)
        if frozen:
            os.kill(pid_of(before["faulty/0"]), signal.SIGSTOP)
        pidfds = [os.pidfd_open(pid_of(row)) for row in before.values()]

        live.process.kill()

        asyncio.run(all_ended(pidfds))
        live.wait()
    assert processes_of(base) == []
    assert not live.layout("faulty").run.exists()
    log = live.layout("faulty").log("supervisor/guard").read_text()
    assert ("faulty/0" in log) == frozen
    assert "nats, etcd" in log


async def all_ended(pidfds: list[int]) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(DEADLINE_S):
        for pidfd in pidfds:
            ended = asyncio.Event()
            loop.add_reader(pidfd, ended.set)
            await ended.wait()
            loop.remove_reader(pidfd)
            os.close(pidfd)


def pid_of(row: ChildRow) -> int:
    assert row.pid is not None, f"{row.id} does not run"
    return row.pid


def life(row: ChildRow) -> int:
    [actor] = row.actors
    assert actor.incarnation is not None
    return actor.incarnation
