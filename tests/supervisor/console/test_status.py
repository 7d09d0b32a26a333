from __future__ import annotations

from typing import Any

import msgspec
import pytest

from supervisor.calls import ActorStatus, ChildRow, RegisteredActor, Status
from supervisor.console.paint import Paint
from supervisor.console.status import render_status


def row(name: str, supervisor: str, **facts: Any) -> ChildRow:
    base = ChildRow(
        id=name, supervisor=supervisor, is_supervisor=False, state="running", run=1, restarts=0
    )
    return msgspec.structs.replace(base, **facts)


STATUS = Status(
    namespace="blue",
    topology="/t/blue.yaml",
    pid=42,
    since=1000.0,
    state="running",
    nats=("nats://127.0.0.1:4222",),
    etcd=("http://127.0.0.1:2379",),
    urls=("http://127.0.0.1:8080",),
    models=("capitals",),
    children=(
        row("supervisor", "", is_supervisor=True),
        row("supervisor/plane", "supervisor", is_supervisor=True),
        row("nats", "supervisor/plane", pid=1, uptime_s=5.0),
        row("etcd", "supervisor/plane", state="restarting", next_retry_s=0.5, restarts=2),
        row(
            "context/0",
            "supervisor",
            pid=3,
            uptime_s=5.0,
            beat_age_s=20.0,
            restarts=1,
            last_exit="boom",
            actors=(ActorStatus(role="context", instance=0, incarnation=17),),
        ),
        row(
            "front/0",
            "supervisor",
            pid=4,
            uptime_s=5.0,
            actors=(
                ActorStatus(role="ingress", instance=0, incarnation=5),
                ActorStatus(role="router", instance=0, incarnation=None),
            ),
        ),
    ),
)


def test_the_tree_is_drawn_with_what_matters_of_each_child() -> None:
    lines = render_status(STATUS, Paint(colours=False), now=1065.0).splitlines()

    assert lines == [
        "blue  running  up 1 min 5 s  pid 42  /t/blue.yaml",
        "├─ plane      running",
        "│  ├─ nats    running  pid 1  up 5.00 s",
        "│  └─ etcd    restarting  next try in 0.50 s  2 restarts",
        "├─ context/0  running  pid 3  up 5.00 s  silent for 20 s  1 restart  #17  last exit: boom",
        "└─ front/0    running  pid 4  up 5.00 s  ingress/0#5  router/0",
        "nats nats://127.0.0.1:4222   etcd http://127.0.0.1:2379",
        "listening on http://127.0.0.1:8080",
        "serving model capitals",
    ]


def test_colours_change_nothing_but_the_colours() -> None:
    plain = render_status(STATUS, Paint(colours=False), now=1065.0)
    painted = render_status(STATUS, Paint(colours=True), now=1065.0)

    assert painted != plain
    for code in (0, 1, 2, 31, 32, 33):
        painted = painted.replace(f"\x1b[{code}m", "")
    assert painted == plain


def shown(row: ChildRow, *, before: Status | None = None, verbose: bool = False) -> list[str]:
    status = msgspec.structs.replace(STATUS, children=(STATUS.children[0], row), clock_s=11.0)
    plain = Paint(colours=False)
    return render_status(status, plain, 1065.0, before=before, verbose=verbose).splitlines()[1:-3]


def fallen(**facts: Any) -> ChildRow:
    tail = tuple(f"line {number}" for number in range(8))
    return row("w/0", "supervisor", last_exit="killed by SIGSEGV", tail=tail, **facts)


def test_of_what_a_fallen_child_logged_only_what_may_explain_it_is_shown() -> None:
    routine = '{"actor": "w/0#3", "event": "actor_ready", "level": "info"}'
    grave = '{"event": "engine_failed", "level": "error"}'
    one = row("w/0", "supervisor", state="failed", tail=("words", routine, grave))

    assert [line.strip() for line in shown(one)[1:]] == ["| words", f"| {grave}"]
    assert len(shown(one, verbose=True)) == 4


def test_a_child_that_is_down_shows_what_it_wrote_last() -> None:
    lines = shown(fallen(state="failed", ended_ago_s=4000.0))

    assert lines == [
        "└─ w/0  failed  last exit 1 h 6 min ago: killed by SIGSEGV",
        *(f"     | line {number}" for number in range(3, 8)),
    ]


@pytest.mark.parametrize(("ago_s", "lines"), [(59.0, 6), (61.0, 1)])
def test_a_child_that_is_up_again_shows_it_for_a_minute(ago_s: float, lines: int) -> None:
    assert len(shown(fallen(ended_ago_s=ago_s))) == lines


def test_verbose_shows_all_that_is_known_of_every_fall() -> None:
    assert len(shown(fallen(ended_ago_s=4000.0), verbose=True)) == 9


def test_what_a_child_wrote_cannot_command_the_terminal() -> None:
    bad = row("w/0", "supervisor", state="failed", last_exit="\x1b[2J", tail=("\x1b]0;x\x07",))

    assert all(line.isprintable() for line in shown(bad))


def test_what_an_actor_says_is_wrong_stands_below_its_process() -> None:
    router = ActorStatus(role="router", instance=0, incarnation=1, troubles=("no \x1bworker",))

    first, second = shown(row("router/0", "supervisor", actors=(router,)))

    assert "router/0" in first
    assert second.strip().startswith("! no ")
    assert second.isprintable()


def test_the_use_of_cpu_is_that_between_two_looks() -> None:
    before = msgspec.structs.replace(
        STATUS, children=(row("w/0", "supervisor", pid=7, cpu_s=1.0),), clock_s=10.0
    )

    [line] = shown(
        row("w/0", "supervisor", pid=7, cpu_s=1.25, memory_bytes=340_000_000), before=before
    )

    assert line == "└─ w/0  running  pid 7  25% cpu  340 MB"


def test_an_understudy_is_told_from_what_serves_and_a_fork_from_what_it_waits_for() -> None:
    children = (
        row("supervisor", "", is_supervisor=True),
        row("g/standby/0", "supervisor", pid=7, standby=True),
        row("g/0", "supervisor", state="starting", waits_for="zygote/worker"),
    )
    shown = render_status(
        msgspec.structs.replace(STATUS, children=children), Paint(colours=False), 1000.0
    )

    assert "├─ g/standby/0  standby  pid 7" in shown
    assert "└─ g/0          starting  waits for zygote/worker" in shown


def test_the_actors_of_other_nodes_stand_below_the_tree_by_their_nodes() -> None:
    actors = tuple(
        RegisteredActor(
            role=role, instance=0, state="ready", host=host, incarnation=7, process=role, pid=9
        )
        for role, host in (("router", "main"), ("context", "left"), ("context", "right"))
    )
    status = msgspec.structs.replace(STATUS, node="left", registered=actors, registry="lost")

    lines = render_status(status, Paint(colours=False), now=1065.0).splitlines()

    at = lines.index("node left; on other nodes:  registry lost; as last seen")
    assert lines[at + 1 : at + 5] == [
        "  main",
        "    router/0   ready  #7  router  pid 9",
        "  right",
        "    context/0  ready  #7  context  pid 9",
    ]


def test_a_node_that_is_not_heard_or_has_no_actor_is_shown_as_such() -> None:
    actor = RegisteredActor(
        role="router", instance=0, state="ready", host="main", incarnation=7, process="r", pid=9
    )
    status = msgspec.structs.replace(
        STATUS, node="left", nodes=("main", "left", "right"), registered=(actor,),
        registry="current", silent=("main",),
    )  # fmt: skip

    lines = render_status(status, Paint(colours=False), now=1065.0).splitlines()

    at = lines.index("node left; on other nodes:")
    assert lines[at + 1 : at + 4] == [
        "  main  not heard",
        "    router/0  ready  #7  r  pid 9",
        "  right  no actor",
    ]


def test_before_the_registry_was_reached_nothing_is_said_of_other_nodes() -> None:
    status = msgspec.structs.replace(STATUS, node="left", nodes=("left",), registry="unreached")

    lines = render_status(status, Paint(colours=False), now=1065.0).splitlines()

    assert "node left; the registry was not reached yet" in lines
