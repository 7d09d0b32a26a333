"""Real processes: NATS, etcd and the example with an actor of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest

from actors.runtime.actor import Actor, Down, handler
from actors.runtime.address import Address
from actors.runtime.message import Message
from actors.runtime.node import Hosted, Node
from actors.runtime.registry.etcd import EtcdRegistry
from actors.runtime.transport.nats import NatsTransport
from supervisor.runstate import is_held, read_run_state
from tests.supervisor.live import (
    DEADLINE_S,
    HELLO,
    Live,
    environment,
    processes_of,
    running,
    supervise,
)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's"),
]


class Greet(Message, frozen=True):
    """The example's own message, as another program would declare it."""

    name: str


class Watcher(Actor):
    """Hears of the end of whom it monitors."""

    async def starting(self) -> None:
        self.down: asyncio.Future[Down] = asyncio.get_running_loop().create_future()

    @handler
    async def on_down(self, message: Down) -> None:
        self.down.set_result(message)


@pytest.fixture(scope="module")
def hello(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The example, up; tests that use it leave it up."""
    base = tmp_path_factory.mktemp("state")
    with running(base, str(HELLO)) as live:
        live.until("ready")
        yield live
    assert processes_of(base) == []


@contextlib.asynccontextmanager
async def a_node_beside(live: Live) -> AsyncIterator[Node]:
    spec = live.node_spec("hello/0")
    node = Node(
        "tester",
        spec.namespace,
        NatsTransport(spec.nats, "tester"),
        EtcdRegistry(spec.etcd, spec.namespace),
    )
    await node.start()
    try:
        yield node
    finally:
        await node.stop()


def test_status_lists_every_child_and_actor(hello: Live) -> None:
    status = hello.status()

    rows = {row.id: row for row in status.children}
    assert list(rows) == [
        "supervisor",
        "supervisor/plane",
        "supervisor/guard",
        "zygote/own",
        "nats",
        "etcd",
        "hello/0",
    ]
    assert {row.state for row in rows.values()} == {"running"}
    assert status.pid == hello.process.pid
    assert rows["hello/0"].pid is not None
    [actor] = rows["hello/0"].actors
    assert actor.name == "hello/0"
    assert actor.incarnation


def test_status_shows_no_secret(hello: Live) -> None:
    token = hello.node_spec("hello/0").nats.token
    assert token

    for arguments in (["status"], ["status", "--json"]):
        done = supervise(hello.base, *arguments)
        assert "hello/0" in done.stdout or "└─ hello" in done.stdout
        assert token not in done.stdout


def test_the_actor_of_the_example_answers_over_nats(hello: Live) -> None:
    async def ask() -> str:
        async with a_node_beside(hello) as node:
            return await node.ask(Address("hello"), Greet("Ada"), reply=str, timeout_s=DEADLINE_S)

    assert asyncio.run(ask()).startswith("Good evening, Ada!")


@pytest.mark.parametrize("child", ["hello/0", "nats", "etcd", "zygote/own", "supervisor/guard"])
def test_a_killed_child_is_back_with_another_pid(hello: Live, child: str) -> None:
    before = hello.child(child)
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)

    assert "SIGKILL" in hello.until("child_failed", child=child)["reason"]
    hello.until("child_ready", child=child)
    after = hello.child(child)
    assert after.pid != before.pid
    assert after.restarts == before.restarts + 1
    assert after.last_exit is not None
    assert "SIGKILL" in after.last_exit


def test_servers_come_back_on_their_ports_and_actors_go_on(hello: Live) -> None:
    ports = (hello.status().nats, hello.status().etcd)
    incarnation = hello.child("hello/0").actors[0].incarnation
    for server in ("nats", "etcd"):
        os.kill(hello.pid(server), signal.SIGKILL)
        hello.until("child_ready", child=server)

    async def ask() -> str:
        async with a_node_beside(hello) as node:
            return await node.ask(Address("hello"), Greet("Bo"), reply=str, timeout_s=DEADLINE_S)

    assert "Bo" in asyncio.run(ask())
    assert (hello.status().nats, hello.status().etcd) == ports
    assert hello.child("hello/0").actors[0].incarnation == incarnation


def test_whoever_monitors_a_killed_actor_is_told_by_the_supervisor(hello: Live) -> None:
    """The reason shows that it was not the lease: that would say nothing of a signal."""
    pid = hello.pid("hello/0")

    async def monitor() -> Down:
        async with a_node_beside(hello) as node:
            watcher = await node.host(Hosted(actor=Watcher, role="watcher"))
            assert isinstance(watcher, Watcher)
            entry = node.directory.find("hello/0")
            assert entry is not None
            watcher.monitor(entry.address)
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE_S):
                return await watcher.down

    down = asyncio.run(monitor())

    assert "SIGKILL" in down.reason
    hello.until("child_ready", child="hello/0")


def test_the_next_life_has_a_greater_incarnation(hello: Live) -> None:
    before = hello.child("hello/0").actors[0].incarnation
    assert before is not None

    done = supervise(hello.base, "restart", "hello")

    assert (done.returncode, done.stdout) == (0, "hello is ready again\n")
    after = hello.child("hello/0").actors[0].incarnation
    assert after is not None
    assert after > before
    [actor] = hello.node_spec("hello/0").actors
    assert actor.above == before  # which also holds when etcd has lost its data


def test_restarting_an_unknown_child_is_denied(hello: Live) -> None:
    done = supervise(hello.base, "restart", "ghost")

    assert done.returncode == 1
    assert "ghost: not found" in done.stderr


def test_a_second_supervisor_is_refused_and_told_of_the_first(hello: Live) -> None:
    done = supervise(hello.base, str(HELLO))

    assert done.returncode == 1
    assert f"pid {hello.process.pid}" in done.stderr
    assert str(HELLO) in done.stderr
    assert hello.status().state == "running"


def test_logs_shows_what_a_server_wrote(hello: Live) -> None:
    done = supervise(hello.base, "logs", "etcd", "-n", "500")

    assert "ready to serve client requests" in done.stdout


def test_logs_can_be_followed(hello: Live) -> None:
    before = supervise(hello.base, "logs", "nats", "-n", "1").stdout
    command = [sys.executable, "-m", "supervisor", "logs", "-f", "nats", "-n", "1"]
    with subprocess.Popen(command, env=environment(hello.base), stdout=subprocess.PIPE) as follower:
        try:
            assert follower.stdout is not None
            assert follower.stdout.readline().decode() == before

            os.kill(hello.pid("nats"), signal.SIGKILL)

            hello.until("child_ready", child="nats")
            assert any(b"Server is ready" in line for line in follower.stdout)
            follower.send_signal(signal.SIGINT)
            assert follower.wait(DEADLINE_S) == 130
        finally:
            follower.kill()  # it would be waited for


def test_the_run_state_names_every_process(hello: Live) -> None:
    state = read_run_state(hello.layout().run)

    assert state is not None
    assert state.supervisor.pid == hello.process.pid
    assert {child.name: child.pid for child in state.children} == {
        name: hello.pid(name)
        for name in ("supervisor/guard", "zygote/own", "nats", "etcd", "hello/0")
    }
    assert set(state.ports) == {"nats", "etcd"}


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    """A deep state directory also needs the socket's short name."""
    base = tmp_path / ("deep" * 30)
    with running(base, str(HELLO), "--namespace", "gone") as live:
        live.until("ready")
        layout = live.layout("gone")
        assert layout.socket.parent != layout.state
        assert layout.socket.exists()
        state = read_run_state(layout.run)
        assert state is not None

        live.process.send_signal(signal.SIGINT)

        assert live.wait() == 0
    assert processes_of(base) == []
    assert not layout.socket.exists()
    assert not layout.run.exists()
    assert not is_held(layout.lock)
    for port in state.ports.values():
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    ended = [line["child"] for line in live.journal if line["event"] == "child_ended"]
    assert ended == ["hello/0", "etcd", "nats", "zygote/own", "supervisor/guard"]
    assert not [line for line in live.journal if line["level"] in {"warning", "error"}]


def test_down_returns_when_everything_is_gone_and_status_says_so(tmp_path: Path) -> None:
    with running(tmp_path, str(HELLO)) as live:
        live.until("ready")

        done = supervise(tmp_path, "down")

        assert (done.returncode, done.stdout) == (0, "hello is down\n")
        assert live.wait() == 0
    assert processes_of(tmp_path) == []
    done = supervise(tmp_path, "status")
    assert done.returncode == 3
    assert "no supervisor runs" in done.stderr


def test_a_crash_loop_ends_with_the_reason_and_the_log(tmp_path: Path) -> None:
    """An actor that fails a while after each start exceeds the restart intensity."""
    (tmp_path / "crashing.py").write_text(
        "import asyncio\n"
        "from actors.runtime.actor import Actor\n"
        "class Crashing(Actor):\n"
        "    async def starting(self):\n"
        "        self.spawn(self.fail(), name='fail')\n"
        "    async def fail(self):\n"
        "        raise RuntimeError('out of luck')\n"
    )
    topology = tmp_path / "crash.yaml"
    topology.write_text(
        "supervision: {intensity: 1, period: 60s}\n"
        "children:\n"
        "  - {name: crasher, actor: 'crashing:Crashing', backoff: {initial: 10ms}}\n"
    )
    with running(tmp_path / "state", str(topology)) as live:
        code = live.wait()

    last = live.journal[-1]
    assert code == 1
    assert last["event"] == "gave_up"
    assert last["child"] == "crasher/0"
    assert "out of luck" in last["reason"]
    assert "out of luck" in Path(last["log"]).read_text()
    assert processes_of(tmp_path / "state") == []


def test_events_are_streamed_until_the_end(tmp_path: Path) -> None:
    with running(tmp_path, str(HELLO)) as live:
        live.until("ready")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(DEADLINE_S)
            listener.connect(str(live.layout().socket))
            lines = listener.makefile("rb")
            listener.sendall(b'{"call":"Events"}\n')
            assert msgspec.json.decode(lines.readline()) == {"answer": "Accepted"}

            live.process.send_signal(signal.SIGTERM)

            told = [msgspec.json.decode(line)["event"] for line in lines]
            lines.close()
    assert told == ["Stopping", *["ChildEnded"] * 5, "Stopped"]


def test_a_wrong_option_is_shown_at_its_place_and_nothing_is_started(tmp_path: Path) -> None:
    done = supervise(tmp_path, str(HELLO), "--set", "children.hello.options.greting=Hi")

    assert done.returncode == 2
    assert "did you mean 'greeting'" in done.stderr
    assert processes_of(tmp_path) == []


STUBBORN = """
import asyncio
from actors.runtime.actor import Actor

class Stubborn(Actor):
    async def stopping(self):
        await asyncio.Event().wait()

class Slow(Actor):
    async def starting(self):
        await asyncio.Event().wait()
"""


def write_topology(directory: Path, children: str, head: str = "") -> Path:
    (directory / "stubborn.py").write_text(STUBBORN)
    path = directory / "stubborn.yaml"
    path.write_text(f"{head}\nchildren:\n{children}")
    return path


def test_a_second_ctrl_c_kills_what_does_not_stop(tmp_path: Path) -> None:
    topology = write_topology(
        tmp_path, "  - {name: deaf, actor: 'stubborn:Stubborn', shutdown: infinity}\n"
    )
    with running(tmp_path / "state", str(topology)) as live:
        live.until("ready")
        live.process.send_signal(signal.SIGINT)
        live.until("stopping", force=False)

        live.process.send_signal(signal.SIGINT)

        live.until("stopping", force=True)
        assert live.until("child_ended", child="deaf/0")["reason"] == "killed"
        assert live.wait() == 0
    assert processes_of(tmp_path / "state") == []


def test_what_does_not_stop_in_time_is_killed(tmp_path: Path) -> None:
    topology = write_topology(
        tmp_path, "  - {name: deaf, actor: 'stubborn:Stubborn', shutdown: 100ms}\n"
    )
    with running(tmp_path / "state", str(topology)) as live:
        live.until("ready")
        live.process.send_signal(signal.SIGTERM)

        assert live.until("child_ended", child="deaf/0")["reason"] == "killed"
        assert live.wait() == 0


def test_a_child_that_is_not_ready_in_time_ends_the_first_start(tmp_path: Path) -> None:
    topology = write_topology(
        tmp_path, "  - {name: slow, actor: 'stubborn:Slow', start_deadline: 1500ms}\n"
    )
    with running(tmp_path / "state", str(topology)) as live:
        assert live.wait() == 1

    assert live.until("child_not_ready")["reason"].startswith("not ready within 1.5 s")
    assert live.journal[-1]["child"] == "slow/0"
    assert processes_of(tmp_path / "state") == []


def test_draining_ends_as_soon_as_the_work_is_done(tmp_path: Path) -> None:
    """The drain may take ten minutes; that it does not shows that the order reached the node."""
    with running(tmp_path, str(HELLO), "--set", "children.hello.drain=10m") as live:
        live.until("ready")
        live.process.send_signal(signal.SIGTERM)

        assert live.until("child_ended", child="hello/0")["reason"] == "shutdown"
        assert live.wait() == 0


def test_a_server_whose_port_is_taken_ends_the_start_with_its_own_words(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        topology = write_topology(
            tmp_path,
            "  - {name: deaf, actor: 'stubborn:Stubborn'}\n",
            head=f"nats: {{embedded: true, port: {port}}}",
        )
        with running(tmp_path / "state", str(topology)) as live:
            assert live.wait() == 1

    assert live.journal[-1]["child"] == "nats"
    assert "address already in use" in live.journal[-1]["reason"]


def test_servers_that_run_elsewhere_are_used_and_not_started(hello: Live, tmp_path: Path) -> None:
    """The plane of one supervisor serves another namespace too."""
    spec = hello.node_spec("hello/0")
    plane = (
        f"--set=nats={{urls: ['{spec.nats.urls[0]}'], token: '{spec.nats.token}'}}",
        f"--set=etcd={spec.etcd.urls[0]}",
    )
    with running(tmp_path, str(HELLO), "--namespace", "guest", *plane) as live:
        live.until("ready")

        rows = [row.id for row in live.status().children]

        assert rows == [
            "supervisor",
            "supervisor/plane",
            "supervisor/guard",
            "zygote/own",
            "hello/0",
        ]
        assert live.status().nats == spec.nats.urls
    assert hello.status().state == "running"


def test_a_supervisor_whose_output_nobody_reads_any_more_goes_on(tmp_path: Path) -> None:
    with running(tmp_path, str(HELLO)) as live:
        live.until("ready")
        pid = live.pid("hello/0")
        assert live.process.stderr is not None
        with socket.socket(socket.AF_UNIX) as listener:
            listener.settimeout(DEADLINE_S)
            listener.connect(str(live.layout().socket))
            lines = listener.makefile("rb")
            listener.sendall(b'{"call":"Events"}\n')
            lines.readline()
            live.process.stderr.close()

            os.kill(pid, signal.SIGKILL)

            ready = next(line for line in lines if b"ChildReady" in line)
            assert b"hello/0" in ready
            lines.close()
        assert supervise(tmp_path, "down").returncode == 0
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("way", ["SIGINT", "down"])
def test_it_can_be_stopped_while_it_checks_the_topology(tmp_path: Path, way: str) -> None:
    """The actor's module tells through a FIFO that it is being imported, and stays there."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    (tmp_path / "endless.py").write_text(
        f"import signal\nopen({str(fifo)!r}, 'w').write('importing')\nsignal.pause()\n"
    )
    topology = tmp_path / "endless.yaml"
    topology.write_text("children:\n  - {name: endless, actor: 'endless:Endless'}\n")
    with running(tmp_path / "state", str(topology)) as live:
        assert fifo.read_text() == "importing"

        if way == "down":
            assert supervise(tmp_path / "state", "down").stdout == "endless is down\n"
        else:
            live.process.send_signal(signal.SIGINT)

        assert live.wait() == 130
    assert processes_of(tmp_path / "state") == []


def test_a_child_that_cannot_be_spawned_ends_the_first_start_with_the_reason(
    tmp_path: Path,
) -> None:
    with running(tmp_path, str(HELLO), "--set", "children.hello.cwd=missing") as live:
        assert live.wait() == 1

    assert live.journal[-1]["child"] == "hello/0"
    assert "cannot be started" in live.journal[-1]["reason"]
    assert processes_of(tmp_path) == []
