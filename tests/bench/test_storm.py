"""That the storm sees what is wrong: a check that finds nothing must be able to find something."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from pathlib import Path

import msgspec

from actors.runtime.registry.base import Entry, State
from bench.storm import TOPOLOGY, ids, judged
from bench.storming.checks import at_rest, violations
from bench.storming.clients import Outcomes, _read
from supervisor.leftovers import STATE_VARIABLE
from tests.supervisor.rows import actor, row, status

ENTRY = Entry(
    role="router",
    instance=0,
    node="router/0",
    host="here",
    pid=os.getpid(),
    pid_started=1,
    incarnation=1,
    state=State.READY,
)
STATUS = status(row("router/0", pid=os.getpid(), actors=(actor("router/0"),)), pid=os.getppid())


def found(state: Path, **changes: object) -> list[str]:
    given = {"registered": {"router/0": ENTRY}, "expected": frozenset({"router/0"}), "restarts": {}}
    return list(violations(STATUS, state=state, **{**given, **changes}))  # type: ignore[arg-type]  # by name


def test_the_ids_of_a_file_are_its_processes_its_understudies_and_the_supervisors_own() -> None:
    assert ids(TOPOLOGY.format(models="m", port=1)) > {
        *("supervisor/guard", "zygote/worker", "etcd", "context/1", "generation/standby/0"),
    }


def test_a_process_that_the_status_does_not_know_is_an_orphan(tmp_path: Path) -> None:
    environ = {**os.environ, STATE_VARIABLE: str(tmp_path)}
    with subprocess.Popen(["sleep", "60"], env=environ, start_new_session=True) as stray:
        try:
            assert any(f"orphan: pid {stray.pid}" in line for line in found(tmp_path))
        finally:
            stray.kill()
    assert not any("orphan" in line for line in found(tmp_path))


def test_a_status_that_does_not_agree_with_the_system_or_the_registry_is_found(
    tmp_path: Path,
) -> None:
    assert found(tmp_path) == [f"router/0, pid {os.getpid()}, does not exist"]
    assert "router/0 counts 0 restarts, not 2" in found(tmp_path, restarts={"router/0": 2})
    assert any("too few" in line for line in found(tmp_path, expected=frozenset({"a", "router/0"})))
    assert "router/0 is not registered" in found(tmp_path, registered={})
    other = msgspec.structs.replace(ENTRY, pid=1)
    assert any(
        "registered as pid 1" in line for line in found(tmp_path, registered={"router/0": other})
    )
    nobody = {"router/0": ENTRY, "router/7": ENTRY}
    assert "router/7 is registered and nobody's" in found(tmp_path, registered=nobody)


def test_a_service_is_at_rest_when_all_is_up_and_registered() -> None:
    assert at_rest(STATUS, {"router/0": ENTRY})
    assert not at_rest(STATUS, {})
    assert not at_rest(status(row("a/0", state="starting")), {})


def test_a_lost_connection_is_excused_only_by_an_ingress_that_fell_meanwhile() -> None:
    cut = Outcomes(counts=Counter(complete=3, cut=1), cuts=[(10.0, 11.0)])

    assert judged(cut, [(10.5, 12.0)]) == []
    assert judged(cut, [(11.5, 12.0)]) == ["1 connections lost although no ingress fell"]
    assert judged(Outcomes(counts=Counter(wrong=2, hung=1)), []) == [
        *("2 requests wrong", "1 requests hung", "no request was served"),
    ]


def test_a_stream_without_its_end_is_wrong_and_an_error_event_is_an_error() -> None:
    chunk = 'data: {"choices": [{"text": "a"}]}\n\n'

    assert _read(f"{chunk}{chunk}data: [DONE]\n\n") == ("complete", "aa")
    assert _read(chunk)[0] == "wrong"
    assert _read('data: {"error": {"message": "x"}}\n\ndata: [DONE]\n\n')[0] == "error"
