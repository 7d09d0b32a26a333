"""A node's process: its exit codes, its words with the supervisor, and its death seen by others."""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.runtime.actor import Down, Joined
from actors.runtime.link import (
    Beat,
    DrainOrder,
    Failing,
    Hello,
    Link,
    Note,
    Prepared,
    Promote,
    Rehearsed,
)
from actors.runtime.pids import process_started
from actors.runtime.process import (
    EXIT_CONFIGURATION,
    EXIT_FAILED,
    EXIT_NAME_LOST,
    EXIT_NAME_TAKEN,
    EXIT_UNAVAILABLE,
    ActorSpec,
    NodeSpec,
)
from tests.actors.runtime.real import RealStage, real_stage
from tests.actors.runtime.stage import Watcher
from tests.plane import Plane, free_port

pytestmark = pytest.mark.process

MODULE = """
import msgspec
from actors.runtime.actor import Actor, handler
from actors.runtime.message import Message

class Question(Message, frozen=True):
    text: str

class Player(Actor):
    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        fails: bool = False
        breaks: bool = False
        ails: bool = False
        told: str = ""

    def meta(self):
        return {"plays": "hamlet"}

    def progress(self):
        return 41, True

    def gauges(self):
        return {"rows": 1 / 0} if self.options.ails else {}

    async def starting(self):
        if self.options.fails:
            raise RuntimeError("forgot the lines")
        if self.options.breaks:
            self.spawn(self.collapse(), name="collapse")

    async def collapse(self):
        raise RuntimeError("collapsed in the wings")

    async def stopping(self):
        if self.options.told:
            open(self.options.told, "w").write("stopped")

    @handler
    async def answer(self, question: Question) -> None:
        raise KeyError(question.text)
"""


class Supervisor:
    """The other end of the link."""

    def __init__(self) -> None:
        self.links: asyncio.Queue[Link] = asyncio.Queue()

    async def met(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links.put_nowait(Link(reader, writer))


async def hear(link: Link, kind: type[Note]) -> Any:
    """The next note of this kind."""
    while True:
        note = await link.hear()
        assert note is not None, f"the node hung up before its {kind.__name__}"
        if isinstance(note, kind):
            return note


class Theatre:
    """Starts node processes on a real plane."""

    def __init__(self, opened: RealStage, directory: Path) -> None:
        self.opened = opened
        self.directory = directory
        self.socket = directory / "link"
        self.supervisor = Supervisor()
        self.processes: list[Process] = []
        (directory / "players.py").write_text(MODULE)

    def spec(self, options: bytes = b"{}", **changes: Any) -> NodeSpec:
        spec = NodeSpec(
            name="player",
            namespace=self.opened.namespace,
            base_dir=str(self.directory),
            nats=self.opened.plane.nats_settings,
            etcd=self.opened.plane.etcd_settings,
            actors=(
                ActorSpec(
                    actor="players:Player",
                    role="player",
                    instance=0,
                    options=msgspec.Raw(options),
                ),
            ),
            run=3,
            link=str(self.socket),
            heartbeat_s=0.05,
        )
        return msgspec.structs.replace(spec, **changes)

    async def start(self, spec: NodeSpec) -> Process:
        path = self.directory / f"spec{len(self.processes)}.json"
        path.write_bytes(msgspec.json.encode(spec))
        command = [sys.executable, "-W", "error", "-m", "actors.runtime.process", str(path)]
        process = await asyncio.create_subprocess_exec(*command, stderr=PIPE, stdout=PIPE)
        self.processes.append(process)
        return process

    async def prepared(self, spec: NodeSpec) -> tuple[Process, Link]:
        """A process that has said that it is ready."""
        process = await self.start(spec)
        link = await self.supervisor.links.get()
        await hear(link, Prepared)
        return process, link


@asynccontextmanager
async def theatre(plane: Plane, directory: Path) -> AsyncIterator[Theatre]:
    async with real_stage(plane) as opened:
        house = Theatre(opened, directory)
        server = await asyncio.start_unix_server(house.supervisor.met, house.socket)
        try:
            async with server:
                yield house
        finally:
            for process in house.processes:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()
            while not house.supervisor.links.empty():
                await house.supervisor.links.get_nowait().close()


async def ended(process: Process) -> tuple[int, str]:
    """The exit code, and what was logged."""
    _, logged = await process.communicate()
    assert process.returncode is not None
    return process.returncode, logged.decode()


async def test_a_node_says_hello_prepared_and_beats_and_ends_with_0_on_a_drain_order(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        process = await house.start(house.spec())
        link = await house.supervisor.links.get()

        assert await link.hear() == Hello("player", process.pid, process_started(process.pid), 3)
        prepared = await hear(link, Prepared)
        beat = await hear(link, Beat)
        link.say(DrainOrder())

        assert (await ended(process))[0] == 0
        assert prepared.incarnations["player/0"] > 0
        assert msgspec.json.decode(prepared.meta["player/0"]) == {"plays": "hamlet"}
        assert (beat.progress, beat.busy) == (41, True)
        await link.close()


async def test_a_node_says_all_of_it_again_to_the_next_supervisor(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        process, link = await house.prepared(house.spec())
        await link.close()

        link = await house.supervisor.links.get()
        assert isinstance(await link.hear(), Hello)
        assert isinstance(await link.hear(), Prepared)
        process.send_signal(signal.SIGTERM)

        assert (await ended(process))[0] == 0
        await link.close()


async def test_the_failure_of_an_actor_is_told_and_ends_with_70(
    plane: Plane, tmp_path: Path, players: Any
) -> None:
    async with theatre(plane, tmp_path) as house:
        watcher = await house.opened.host(Watcher, "w")
        watcher.watch("player")
        process, link = await house.prepared(house.spec())
        while not watcher.directory.ready("player"):
            await watcher.until(len(watcher.seen) + 1)

        watcher.tell("player", players.Question("lines"))

        failing = await hear(link, Failing)
        assert failing == Failing("player/0 failed: KeyError: 'lines'")
        code, logged = await ended(process)
        assert code == EXIT_FAILED
        assert "Traceback" in logged
        await link.close()


async def test_an_actor_that_cannot_say_how_it_is_has_failed_and_is_not_taken_for_hung(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        process, link = await house.prepared(house.spec(b'{"ails": true}'))

        failing = await hear(link, Failing)
        assert failing == Failing("player/0 failed: ZeroDivisionError: division by zero")
        code, logged = await ended(process)
        assert code == EXIT_FAILED
        assert "in gauges" in logged
        await link.close()


@pytest.fixture
def players(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the player, imported here too."""
    (tmp_path / "players.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import players  # type: ignore[import-not-found]  # written a moment ago

    yield players
    del sys.modules["players"]


async def test_a_failing_start_is_told_and_ends_with_70(plane: Plane, tmp_path: Path) -> None:
    async with theatre(plane, tmp_path) as house:
        process = await house.start(house.spec(b'{"fails": true}'))
        link = await house.supervisor.links.get()

        assert await hear(link, Failing) == Failing("forgot the lines")
        assert (await ended(process))[0] == EXIT_FAILED
        await link.close()


async def test_wrong_specifications_end_with_78(plane: Plane, tmp_path: Path) -> None:
    async with theatre(plane, tmp_path) as house:
        spec = house.spec(link=None)
        [player] = spec.actors
        wrong_class = msgspec.structs.replace(player, actor="players:Missing")
        no_actor = msgspec.structs.replace(player, actor="players:Question")
        bad_options = msgspec.structs.replace(player, options=msgspec.Raw(b'{"fail": 1}'))
        specs = [
            msgspec.structs.replace(spec, actors=(actor,))
            for actor in (wrong_class, no_actor, bad_options)
        ]

        outcomes = [await ended(await house.start(item)) for item in specs]

        assert [code for code, _ in outcomes] == [EXIT_CONFIGURATION] * 3
        assert "Missing" in outcomes[0][1]
        assert "is not an Actor class" in outcomes[1][1]
        assert "unknown field `fail`" in outcomes[2][1]


async def test_servers_out_of_reach_end_with_69(plane: Plane, tmp_path: Path) -> None:
    async with theatre(plane, tmp_path) as house:
        nowhere = f"127.0.0.1:{free_port()}"
        nats = msgspec.structs.replace(
            plane.nats_settings, urls=(f"nats://{nowhere}",), connect_timeout_s=0.2
        )
        etcd = msgspec.structs.replace(
            plane.etcd_settings, urls=(f"http://{nowhere}",), connect_timeout_s=0.2
        )

        without_nats = await ended(await house.start(house.spec(link=None, nats=nats)))
        without_etcd = await ended(await house.start(house.spec(link=None, etcd=etcd)))

        assert (without_nats[0], without_etcd[0]) == (EXIT_UNAVAILABLE, EXIT_UNAVAILABLE)
        assert "NATS at" in without_nats[1]
        assert "etcd at" in without_etcd[1]


async def test_without_a_supervisor_a_node_drains_and_leaves(plane: Plane, tmp_path: Path) -> None:
    async with theatre(plane, tmp_path) as house:
        spec = house.spec(link=str(tmp_path / "nobody"), orphan_timeout_s=0.1)

        code, logged = await ended(await house.start(spec))

        assert code == 0
        assert "orphaned" in logged


async def test_to_be_turned_away_again_and_again_is_to_be_without_a_supervisor(
    plane: Plane, tmp_path: Path
) -> None:
    """A supervisor that knows nothing of a node answers, so to be connected counts for nothing."""
    async with theatre(plane, tmp_path) as house:

        async def turn_away(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        path = tmp_path / "hostile"
        async with await asyncio.start_unix_server(turn_away, path):
            node = await house.start(house.spec(link=str(path), orphan_timeout_s=0.5))

            code, logged = await ended(node)

        assert code == 0
        assert "orphaned" in logged


async def test_a_name_is_taken_until_its_process_dies_and_down_when_the_lease_runs_out(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        watcher = await house.opened.host(Watcher, "w")
        watcher.watch("player")
        process, link = await house.prepared(house.spec())
        second = await house.start(house.spec(link=None))
        taken, _ = await ended(second)
        await watcher.until(1)
        [first] = {message.entry.address for message in watcher.seen if isinstance(message, Joined)}
        watcher.monitor(first)

        process.kill()
        await process.communicate()
        await link.close()
        while not watcher.downs():
            await watcher.until(len(watcher.seen) + 1)

        assert taken == EXIT_NAME_TAKEN
        assert watcher.downs() == [Down(first, "left the registry")]


async def test_a_node_frozen_beyond_its_lease_ends_itself_when_its_name_has_a_successor(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        watcher = await house.opened.host(Watcher, "w")
        watcher.watch("player")
        frozen, link = await house.prepared(house.spec())
        frozen.send_signal(signal.SIGSTOP)
        while not watcher.downs():
            await watcher.until(len(watcher.seen) + 1)
        successor, successors_link = await house.prepared(house.spec())
        frozen.send_signal(signal.SIGCONT)
        failing = await hear(link, Failing)
        code, _ = await ended(frozen)
        await link.close()
        await successors_link.close()

        assert code == EXIT_NAME_LOST
        assert re.fullmatch(r"player/0#\d+ lost its name to #\d+, .*", failing.reason)
        assert successor.returncode is None
        found = watcher.directory.find("player/0")
        assert found is not None
        assert found.pid == successor.pid


async def test_a_standby_waits_without_a_name_and_takes_it_over_when_promoted(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        principal, first = await house.prepared(house.spec())
        await house.start(house.spec(standby=True, run=100))
        second = await house.supervisor.links.get()
        await hear(second, Rehearsed)
        incarnation = await _kill_and_learn_life(house, principal)

        second.say(Promote(run=4, above={"player/0": incarnation}))

        prepared = await hear(second, Prepared)
        assert prepared.incarnations["player/0"] > incarnation
        await first.close()
        await second.close()


async def test_a_standby_goes_on_as_whom_it_is_told_to_be(plane: Plane, tmp_path: Path) -> None:
    log = tmp_path / "principal.log"
    async with theatre(plane, tmp_path) as house:
        process = await house.start(house.spec(standby=True, run=100, name="player/standby/0"))
        link = await house.supervisor.links.get()
        await hear(link, Rehearsed)

        link.say(Promote(run=4, above={}, node="player/7", instance=7, log=str(log)))

        assert (await hear(link, Prepared)).incarnations.keys() == {"player/7"}
        assert _comm(process.pid) == "player/7"
        link.say(Promote(run=5, above={}, node="player/8", instance=8))  # too late
        await link.close()
        again = await house.supervisor.links.get()
        hello = await hear(again, Hello)
        assert (hello.node, hello.run) == ("player/7", 4)
        assert "link_note_ignored" in log.read_text(encoding="utf-8")
        assert '"node": "player/7"' in log.read_text(encoding="utf-8")
        await again.close()


async def test_a_standby_that_is_promoted_while_it_loads_takes_the_name_when_it_has(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        await house.start(house.spec(standby=True))
        link = await house.supervisor.links.get()
        link.say(Promote(run=4, above={}))

        assert (await hear(link, Prepared)).incarnations.keys() == {"player/0"}
        await link.close()


@pytest.mark.parametrize("how", ["drained", "terminated"])
async def test_a_standby_that_is_told_to_leave_gives_back_what_it_has_loaded(
    plane: Plane, tmp_path: Path, how: str
) -> None:
    told = tmp_path / "told"
    async with theatre(plane, tmp_path) as house:
        options = msgspec.json.encode({"told": str(told)})
        process = await house.start(house.spec(options, standby=True))
        link = await house.supervisor.links.get()
        await hear(link, Rehearsed)

        if how == "drained":
            link.say(DrainOrder())
        else:
            process.send_signal(signal.SIGTERM)

        code, _ = await ended(process)
        assert code == 0
        assert told.read_text(encoding="ascii") == "stopped"
        await link.close()


async def test_a_standby_whose_actor_fails_ends_though_it_is_nobody_yet(
    plane: Plane, tmp_path: Path
) -> None:
    async with theatre(plane, tmp_path) as house:
        process = await house.start(house.spec(b'{"breaks": true}', standby=True))
        link = await house.supervisor.links.get()

        assert "collapsed in the wings" in (await hear(link, Failing)).reason
        code, _ = await ended(process)
        assert code == EXIT_FAILED
        await link.close()


def _comm(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip()


async def _kill_and_learn_life(house: Theatre, process: Process) -> int:
    """End the principal; return which life it was."""
    watcher = await house.opened.host(Watcher, "w")
    watcher.watch("player")
    await watcher.until(1)
    joined = watcher.seen[0]
    assert isinstance(joined, Joined)
    process.kill()
    await process.communicate()
    return joined.entry.incarnation
