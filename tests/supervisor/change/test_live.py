"""Changes of a real service, while it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from actors.runtime.message import Message
from actors.runtime.node import Node
from actors.runtime.registry.etcd import EtcdRegistry
from actors.runtime.transport.nats import NatsTransport
from supervisor.runstate import read_run_state
from tests.supervisor.live import DEADLINE_S, Live, processes_of, running, supervise

pytestmark = [pytest.mark.process, pytest.mark.deadline(120)]

DISMISSAL = "scale hello to 1: drain and stop hello/1"
ENOUGH = 100
"""Asks; measured: some thousands."""
GREETERS = '''
import asyncio
import msgspec
from actors.runtime.actor import Actor, handler
from actors.runtime.message import Message

class Greet(Message, frozen=True):
    name: str

class Wait(Message, frozen=True):
    """Answered after a while: work that is still in hand when a drain begins."""
    seconds: float

class Greeter(Actor):
    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        greeting: str = "Hello"

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.idle = asyncio.Event()
        self.idle.set()

    async def starting(self):
        if self.options.greeting == "fail":
            raise RuntimeError("no such greeting")

    @handler
    def greet(self, message: Greet) -> str:
        return f"{self.options.greeting}, {message.name}"

    @handler(concurrent=True)
    async def wait(self, message: Wait) -> str:
        self.idle.clear()
        await asyncio.sleep(message.seconds)
        self.idle.set()
        return "done"

    async def draining(self):
        await self.idle.wait()
'''
TOPOLOGY = """
namespace: hello
children:
  - {name: hello, actor: "greeters:Greeter", replicas: REPLICAS, options: {greeting: GREETING}}
  - {name: other, actor: "greeters:Greeter", role: other, DRAIN}
"""


class Greet(Message, frozen=True):
    name: str


class Wait(Message, frozen=True):
    seconds: float


def write(
    directory: Path, *, replicas: int = 1, greeting: str = "Hello", drain: str = "drain: 10s"
) -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "greeters.py").write_text(GREETERS)
    text = TOPOLOGY.replace("REPLICAS", str(replicas)).replace("GREETING", greeting)
    path = directory / "hello.yaml"
    path.write_text(text.replace("DRAIN", drain))
    return path


@contextlib.contextmanager
def served(place: Path) -> Iterator[Live]:
    """The two entries above, up; nothing is left at the end."""
    base = place / "state"
    with running(base, str(write(place / "src"))) as live:
        live.until("ready")
        yield live
    assert processes_of(base) == []


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with served(tmp_path_factory.mktemp("hello")) as live:
        yield live


@pytest.fixture
def untouched(lasting: Live) -> Iterator[Live]:
    """The service for a test that changes no more than the file."""
    lasting.go_past()
    before = pids(lasting)
    yield lasting
    assert pids(lasting) == before
    write(topology_of(lasting).parent)


@pytest.fixture
def service(lasting: Live) -> Iterator[Live]:
    """The service for a test that changes it; put back at the end."""
    lasting.go_past()
    yield lasting
    done = supervise(lasting.base, "apply", str(write(topology_of(lasting).parent)), "--yes")
    assert done.returncode == 0, done.stderr
    assert pids(lasting).keys() == {"hello/0", "other/0"}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Live]:
    """A service for a test that ends it."""
    with served(tmp_path) as live:
        yield live


def topology_of(live: Live) -> Path:
    return live.base.parent / "src" / "hello.yaml"


def pids(live: Live) -> dict[str, int]:
    return {
        row.id: row.pid
        for row in live.status().children
        if row.pid is not None and row.id.startswith(("hello/", "other/"))
    }


@contextlib.asynccontextmanager
async def a_node_beside(live: Live) -> AsyncIterator[Node]:
    spec = live.node_spec("other/0")
    transport, registry = NatsTransport(spec.nats, "tester"), EtcdRegistry(spec.etcd, "hello")
    node = Node("tester", spec.namespace, transport, registry)
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


class Client:
    """Asks for greetings without a pause, one after the other; the first refusal ends it."""

    def __init__(self, node: Node) -> None:
        self.said: list[str] = []
        self._node = node
        self._enough = asyncio.Event()

    async def run(self) -> None:
        while not self._enough.is_set():
            answer = await self._node.ask("hello", Greet("Ada"), reply=str, timeout_s=DEADLINE_S)
            self.said.append(answer)

    def stop(self) -> None:
        self._enough.set()


async def asked_while(live: Live, *commands: tuple[str, ...]) -> list[str]:
    """Run commands one after the other while a client asks; what it was told. Raises whatever an
    ask raises."""
    async with a_node_beside(live) as node:
        client = Client(node)
        asking = asyncio.create_task(client.run())
        try:
            for command in commands:
                done = await asyncio.to_thread(supervise, live.base, *command)
                assert done.returncode == 0, done.stderr
        finally:
            client.stop()
            await asking
    assert len(client.said) >= ENOUGH, "too little was asked for the run to say anything"
    return client.said


def test_scaling_up_and_down_touches_nobody_else(service: Live) -> None:
    before = pids(service)

    done = supervise(service.base, "scale", "hello", "3")

    assert (done.returncode, done.stdout) == (0, "hello has 3 replicas\n")
    assert pids(service).keys() == {"hello/0", "hello/1", "hello/2", "other/0"}
    assert supervise(service.base, "scale", "hello", "1").stdout == "hello has 1 replica\n"
    assert pids(service) == before
    state = read_run_state(service.layout().run)
    assert state is not None
    assert {child.name: child.pid for child in state.children}.items() >= before.items()


async def test_no_ask_fails_while_two_replicas_are_restarted_one_by_one(service: Live) -> None:
    supervise(service.base, "scale", "hello", "2")
    before = pids(service)

    said = await asked_while(service, ("restart", "--rolling", "hello"))

    after = pids(service)
    assert set(said) == {"Hello, Ada"}
    assert after.keys() == before.keys()
    assert {id_ for id_ in after if after[id_] != before[id_]} == {"hello/0", "hello/1"}


async def test_no_ask_fails_while_the_only_replica_is_replaced(service: Live) -> None:
    before = pids(service)
    write(topology_of(service).parent, greeting="Good evening")

    said = await asked_while(service, ("apply", str(topology_of(service)), "--yes"))

    after = pids(service)
    assert (said[0], said[-1]) == ("Hello, Ada", "Good evening, Ada")
    assert after.keys() == before.keys()
    assert {id_ for id_ in after if after[id_] != before[id_]} == {"hello/0"}


def test_apply_shows_the_difference_and_the_second_time_does_nothing(service: Live) -> None:
    path = write(topology_of(service).parent, replicas=2, greeting="Ahoy")
    before = pids(service)

    shown = supervise(service.base, "apply", str(path), "--dry-run")

    assert shown.returncode == 0
    assert "+ hello/1" in shown.stdout
    assert "~ hello/0  options.greeting: Hello -> Ahoy" in shown.stdout
    assert pids(service) == before
    assert "applied" in supervise(service.base, "apply", str(path), "--yes").stdout
    after = pids(service)
    assert after["other/0"] == before["other/0"]
    again = supervise(service.base, "apply", str(path), "--yes")
    assert (again.returncode, again.stdout) == (0, "nothing to change\n")
    assert pids(service) == after


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("children: [{actor: route}]", "did you mean 'router'?"),
        ("namespace: hello\nchildren: [{name: a, actor: 'greeters:Gone'}]", "Gone"),
        (
            (
                "namespace: hello\nnats: nats://elsewhere:4222\n"
                "children: [{name: hello, actor: 'greeters:Greeter'}]"
            ),
            "expected the server in use",
        ),
        (
            "namespace: hello\nchildren: [{name: hello, actor: 'greeters:Greeter', cpus: 4000}]",
            "expected processors that we may use",
        ),
    ],
)
def test_a_bad_file_leaves_everything_as_it_is(untouched: Live, text: str, complaint: str) -> None:
    before = pids(untouched)
    topology_of(untouched).write_text(text)

    done = supervise(untouched.base, "apply", str(topology_of(untouched)), "--yes")

    assert done.returncode != 0
    assert complaint in done.stderr
    assert pids(untouched) == before


def test_what_does_not_start_is_taken_back_before_anything_old_is_touched(service: Live) -> None:
    before = pids(service)
    path = write(topology_of(service).parent, replicas=2, greeting="fail")

    done = supervise(service.base, "apply", str(path), "--yes")

    assert done.returncode == 1
    assert "no such greeting" in done.stderr
    assert "everything is as before" in done.stderr
    assert pids(service) == before
    assert service.until("change_failed")["taken_back"] is True
    assert supervise(service.base, "scale", "hello", "2").returncode == 0


def test_sighup_applies_the_file_as_it_is_now(service: Live) -> None:
    before = pids(service)
    write(topology_of(service).parent, greeting="Ahoy")

    service.process.send_signal(signal.SIGHUP)

    assert service.until("change_done")["what"] == "reload hello.yaml"
    after = pids(service)
    assert after["hello/0"] != before["hello/0"]
    assert after["other/0"] == before["other/0"]


def test_sighup_with_a_mistake_in_the_file_is_told_and_changes_nothing(untouched: Live) -> None:
    before = pids(untouched)
    topology_of(untouched).write_text("children: 7")

    untouched.process.send_signal(signal.SIGHUP)

    assert "expected a list" in untouched.until("change_failed")["reason"]
    assert pids(untouched) == before


def test_a_drained_child_stays_stopped_until_it_is_restarted(service: Live) -> None:
    done = supervise(service.base, "drain", "other")

    assert done.returncode == 0
    assert service.child("other/0").state == "stopped"
    assert "nothing to change" in supervise(service.base, "apply", str(topology_of(service))).stdout
    assert supervise(service.base, "restart", "other").returncode == 0
    assert service.child("other/0").state == "running"


def test_what_is_logged_changes_while_it_runs(service: Live) -> None:
    before = service.pid("other/0")
    log = service.child("other/0").log
    assert log is not None

    # What is told first is obeyed first: of these four only the two that are to be seen are.
    for level in ("debug", "error", "warning", "info"):
        done = supervise(service.base, "log-level", "other", level)
        assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + DEADLINE_S
    while '"to": "info"' not in Path(log).read_text("utf-8"):
        assert time.monotonic() < deadline, Path(log).read_text("utf-8")
        time.sleep(0.05)

    lines = [json.loads(line) for line in Path(log).read_text("utf-8").splitlines()]
    levels = [line["to"] for line in lines if line["event"] == "log_level_set"]
    assert levels == ["debug", "info"]
    assert service.pid("other/0") == before
    refused = supervise(service.base, "log-level", "nobody", "debug")
    assert refused.returncode == 1
    assert "nobody: no running node, entry or actor is called so" in refused.stderr


async def test_work_in_hand_is_finished_before_the_end(own: Live) -> None:
    """The answer comes although the order to stop came before it."""
    async with a_node_beside(own) as node:
        asking = asyncio.create_task(node.ask("hello", Wait(2.0), reply=str, timeout_s=DEADLINE_S))
        # Handled in order: when this is answered, the wait has begun.
        await node.ask("hello", Greet("Ada"), reply=str, timeout_s=DEADLINE_S)

        own.process.send_signal(signal.SIGTERM)

        assert await asking == "done"
    assert own.wait() == 0


async def test_down_now_does_not_wait_for_work_in_hand(own: Live) -> None:
    async with a_node_beside(own) as node:
        asking = asyncio.create_task(node.ask("hello", Wait(600.0), reply=str, timeout_s=1000.0))
        await node.ask("hello", Greet("Ada"), reply=str, timeout_s=DEADLINE_S)

        done = await asyncio.to_thread(supervise, own.base, "down", "--now")

        assert done.returncode == 0
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert own.until("child_ended", child="hello/0")["reason"] == "shutdown"


def test_scaling_what_is_not_there_is_denied_with_what_is(untouched: Live) -> None:
    done = supervise(untouched.base, "scale", "helo", "2")

    assert done.returncode == 1
    assert "did you mean 'hello'?" in done.stderr


async def test_a_second_change_is_denied_while_one_is_under_way(service: Live) -> None:
    """The first one waits for work in hand."""
    supervise(service.base, "scale", "hello", "2")
    async with a_node_beside(service) as node:
        entry = node.directory.find("hello/1")
        assert entry is not None
        asking = asyncio.create_task(
            node.ask(entry.address, Wait(5.0), reply=str, timeout_s=DEADLINE_S)
        )
        await node.ask(entry.address, Greet("Ada"), reply=str, timeout_s=DEADLINE_S)
        first = asyncio.create_task(
            asyncio.to_thread(supervise, service.base, "scale", "hello", "1")
        )
        await asyncio.to_thread(service.until, "change_step", what=DISMISSAL)

        second = await asyncio.to_thread(supervise, service.base, "scale", "hello", "3")

        assert second.returncode == 1
        assert "a change is under way: scale hello to 1" in second.stderr
        assert await asking == "done"
        assert (await first).returncode == 0
