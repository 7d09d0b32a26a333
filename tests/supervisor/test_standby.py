"""Understudies in real processes: who steps in for whom, and what becomes of the places."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from actors.runtime.address import Address
from actors.runtime.message import Message
from supervisor.leftovers import end_leftovers
from supervisor.runstate import RunningChild, RunState, read_run_state, write_run_state
from tests.supervisor.faulty import write_faulty
from tests.supervisor.live import DEADLINE_S, Live, processes_of, running, supervise
from tests.supervisor.test_watching import Block, Stand, ask_pid, tell

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's"),
]
UNDERSTUDY = "faulty/standby/0"
ENTRY = "standby: 1, backoff: {reset_after: 0s}"
"""Each run counts as stable, so that no test waits for the back-off of the one before."""


class Fall(Message, frozen=True):
    pass


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A supervisor with one faulty actor that has an understudy; tests leave both standing."""
    base = tmp_path_factory.mktemp("state")
    head = "supervision: {intensity: 100}"
    topology = write_faulty(tmp_path_factory.mktemp("topology"), head=head, entry=ENTRY)
    with running(base, str(topology)) as live:
        live.until("ready")
        live.until("child_ready", child=UNDERSTUDY)
        yield live
    assert processes_of(base) == []


def kill(live: Live, name: str) -> None:
    os.kill(live.told_pid(name), signal.SIGKILL)


def steps_in(live: Live, understudy: int, child: str = "faulty/0") -> None:
    """Wait until the process of the understudy has a child's place, and its own is filled."""
    assert live.until("child_promoted", child=child)["pid"] == understudy
    live.until("child_ready", child=child)
    live.until("child_ready", child=UNDERSTUDY)
    assert live.told_pid(child) == understudy
    assert live.told_pid(UNDERSTUDY) != understudy


def test_a_service_is_up_before_its_understudies_are(faulty: Live) -> None:
    said = [(line["event"], line.get("child")) for line in faulty.journal]

    assert said.index(("ready", None)) < said.index(("child_ready", UNDERSTUDY))


def test_an_understudy_is_no_actor_and_cannot_be_addressed(faulty: Live) -> None:
    row = faulty.child(UNDERSTUDY)

    assert (row.state, row.standby, row.actors) == ("running", True, ())
    assert not faulty.child("faulty/0").standby


def test_it_steps_in_for_one_that_is_killed(faulty: Live) -> None:
    understudy, before = faulty.told_pid(UNDERSTUDY), faulty.child("faulty/0")

    kill(faulty, "faulty/0")

    steps_in(faulty, understudy)
    assert ask_pid(faulty) == understudy
    after, place = faulty.child("faulty/0"), faulty.child(UNDERSTUDY)
    assert after.restarts == before.restarts + 1
    assert (after.actors[0].incarnation or 0) > (before.actors[0].incarnation or 0)
    assert place.restarts == 0
    assert place.last_exit is None


@pytest.mark.parametrize("fault", ["fails", "is stopped", "blocks", "is stuck"])
def test_it_steps_in_for_one_that_falls_in_any_way(faulty: Live, fault: str) -> None:
    understudy = faulty.told_pid(UNDERSTUDY)

    match fault:
        case "fails":
            tell(faulty, Fall())
        case "is stopped":
            os.kill(faulty.told_pid("faulty/0"), signal.SIGSTOP)
        case "blocks":
            tell(faulty, Block(60.0))
        case _:
            tell(faulty, Stand(0.0))

    steps_in(faulty, understudy)


def test_who_has_stepped_in_is_known_by_the_new_name_and_writes_to_its_log(faulty: Live) -> None:
    understudy = faulty.told_pid(UNDERSTUDY)
    kill(faulty, "faulty/0")
    steps_in(faulty, understudy)

    tell(faulty, Fall())

    ended = faulty.until("child_failed", child="faulty/0")
    assert "fell" in ended["reason"]
    assert any("actor_failed" in line for line in ended["tail"])
    assert '"node": "faulty/0"' in ended["tail"][-1]
    faulty.until("child_ready", child="faulty/0")
    faulty.until("child_ready", child=UNDERSTUDY)


def test_an_understudy_that_is_killed_or_frozen_is_replaced_and_nobody_else_is(
    faulty: Live,
) -> None:
    principal = faulty.told_pid("faulty/0")

    kill(faulty, UNDERSTUDY)
    faulty.until("child_ready", child=UNDERSTUDY)
    os.kill(faulty.told_pid(UNDERSTUDY), signal.SIGSTOP)

    assert "heartbeat" in faulty.until("child_failed", child=UNDERSTUDY)["reason"]
    faulty.until("child_ready", child=UNDERSTUDY)
    assert faulty.told_pid("faulty/0") == principal


def test_one_that_freezes_as_it_steps_in_does_not_keep_the_place(faulty: Live) -> None:
    frozen = faulty.told_pid(UNDERSTUDY)
    os.kill(frozen, signal.SIGSTOP)

    os.kill(faulty.told_pid("faulty/0"), signal.SIGKILL)

    assert faulty.until("child_promoted", child="faulty/0")["pid"] == frozen
    assert "heartbeat" in faulty.until("child_failed", child="faulty/0")["reason"]
    faulty.until("child_ready", child="faulty/0")
    faulty.until("child_ready", child=UNDERSTUDY)
    assert ask_pid(faulty) == faulty.told_pid("faulty/0") != frozen


def test_who_is_told_to_restart_is_started_anew_and_so_are_its_understudies(faulty: Live) -> None:
    """It may be told for the sake of new code, which an understudy does not have."""
    understudy, principal = faulty.pid(UNDERSTUDY), faulty.pid("faulty/0")

    for arguments in (["restart", "faulty"], ["restart", "--rolling", "faulty"]):
        assert supervise(faulty.base, *arguments).returncode == 0

        now = {faulty.pid(UNDERSTUDY), faulty.pid("faulty/0")}
        assert not now & {understudy, principal}
        understudy, principal = faulty.pid(UNDERSTUDY), faulty.pid("faulty/0")


def test_it_takes_the_number_of_the_replica_that_fell(faulty: Live) -> None:
    assert supervise(faulty.base, "scale", "faulty", "2").returncode == 0
    first, understudy = faulty.pid("faulty/0"), faulty.pid(UNDERSTUDY)

    faulty.kill("faulty/1")

    steps_in(faulty, understudy, "faulty/1")
    assert ask_pid(faulty, Address("faulty", 1)) == understudy
    assert ask_pid(faulty, Address("faulty", 0)) == first
    assert supervise(faulty.base, "scale", "faulty", "1").returncode == 0


def test_apply_adds_and_takes_away_understudies_and_touches_nobody_else(
    faulty: Live,
) -> None:
    principal, understudy = faulty.pid("faulty/0"), faulty.pid(UNDERSTUDY)
    file = faulty.status().topology

    def apply(standby: int) -> str:
        text = Path(file).read_text().replace("standby: 1", f"standby: {standby}")
        Path(file).with_name("changed.yaml").write_text(text)
        done = supervise(faulty.base, "apply", str(Path(file).with_name("changed.yaml")), "--yes")
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "+ faulty/standby/1" in apply(2)
    assert faulty.child("faulty/standby/1").state == "running"
    assert "- faulty/standby/0" in apply(0)
    assert not any(row.standby for row in faulty.status().children)
    assert "+ faulty/standby/0" in apply(1)
    assert faulty.pid("faulty/0") == principal
    assert faulty.pid(UNDERSTUDY) != understudy


@contextmanager
def abandoned(base: Path, file: str) -> Iterator[tuple[Live, dict[str, RunningChild]]]:
    """What a supervisor has left that was killed when its understudy stood by."""
    with running(base, file) as live:
        live.until("ready")
        live.until("child_ready", child=UNDERSTUDY)
        left = {child.name: child for child in state_of(live).children}
        live.process.kill()
        live.wait()
        try:
            yield live, left
        finally:
            if live.layout("faulty").run.exists():  # nobody took it over, or the test has failed
                asyncio.run(end_leftovers(state_of(live).children, grace_s=1.0))
            assert processes_of(base) == []


def test_a_successor_adopts_an_understudy_and_it_steps_in_for_who_died_meanwhile(
    tmp_path: Path,
) -> None:
    base, file = tmp_path / "state", str(write_faulty(tmp_path, entry=ENTRY))
    with abandoned(base, file) as (_, left):
        principal, understudy = left["faulty/0"].pid, left[UNDERSTUDY].pid
        with running(base, file) as second:
            second.until("ready")
            assert second.told_pid("faulty/0") == principal
            assert second.told_pid(UNDERSTUDY) == understudy
            second.process.kill()
            second.wait()
        os.kill(principal, signal.SIGKILL)

        with running(base, file) as third:
            assert third.until("child_promoted", child="faulty/0")["pid"] == understudy
            third.until("ready")
            third.until("child_ready", child=UNDERSTUDY)
            assert ask_pid(third) == third.told_pid("faulty/0") == understudy
            third.process.kill()
            third.wait()

        with running(base, file) as fourth:  # who has stepped in is adopted like anybody
            fourth.until("ready")
            assert fourth.told_pid("faulty/0") == understudy


def test_a_promotion_that_a_supervisor_did_not_live_to_tell_is_told_by_the_next(
    tmp_path: Path,
) -> None:
    base, file = tmp_path / "state", str(write_faulty(tmp_path, entry=ENTRY))
    with abandoned(base, file) as (first, left):
        old, understudy = left.pop("faulty/0"), left.pop(UNDERSTUDY)
        os.kill(old.pid, signal.SIGKILL)
        # What a supervisor writes down before it says anything.
        stepped_in = msgspec.structs.replace(
            understudy,
            name="faulty/0",
            run=old.run + 1000,
            identity=old.identity,
            rehearsed=False,
            formerly=(UNDERSTUDY, understudy.run),
        )
        written = msgspec.structs.replace(state_of(first), children=(*left.values(), stepped_in))
        write_run_state(first.layout("faulty").run, written)

        with running(base, file) as second:
            second.until("ready")
            assert ask_pid(second) == second.told_pid("faulty/0") == understudy.pid


def test_understudies_leave_when_nobody_supervises_them(tmp_path: Path) -> None:
    base = tmp_path / "state"
    file = str(write_faulty(tmp_path, head="orphan_timeout: 1s", entry=ENTRY))
    with abandoned(base, file) as (_, left):
        pidfd = os.pidfd_open(left[UNDERSTUDY].pid)
        try:
            ended, _, _ = select.select([pidfd], [], [], DEADLINE_S)
        finally:
            os.close(pidfd)
        assert ended


def test_an_understudy_has_gpus_of_its_own_and_brings_them_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    base, file = tmp_path / "state", str(write_faulty(tmp_path, entry=f"{ENTRY}, gpus: 1"))

    def granted(live: Live) -> dict[str, str]:
        return {
            child.name: child.granted["CUDA_VISIBLE_DEVICES"]
            for child in state_of(live).children
            if child.granted
        }

    with running(base, file) as live:
        live.until("ready")
        live.until("child_ready", child=UNDERSTUDY)
        assert granted(live) == {"faulty/0": "0", UNDERSTUDY: "1"}

        kill(live, "faulty/0")
        live.until("child_ready", child=UNDERSTUDY)

        assert granted(live) == {"faulty/0": "1", UNDERSTUDY: "0"}
    refused = supervise(base, "up", file, "--set", "children.faulty.standby=2")
    assert refused.returncode == 2
    assert "found 3" in refused.stderr


def state_of(live: Live) -> RunState:
    state = read_run_state(live.layout("faulty").run)
    assert state is not None
    return state
