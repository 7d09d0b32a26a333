from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.runstate import (
    Lock,
    LockHeldError,
    RunningChild,
    RunState,
    is_held,
    read_holder,
    read_run_state,
    this_process,
    write_run_state,
)

CHILDREN = st.builds(
    RunningChild,
    name=st.text(min_size=1),
    pid=st.integers(1, 2**22),
    pid_started=st.integers(1, 2**50),
    run=st.integers(1, 2**40),
    server=st.booleans(),
    incarnations=st.dictionaries(st.text(), st.integers(0, 2**62), max_size=3),
)


@given(st.lists(CHILDREN, max_size=4), st.dictionaries(st.text(), st.integers(1, 65535)))
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, children: list[RunningChild], ports: dict[str, int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "run.json"
    state = RunState(
        supervisor=this_process("blue", Path("t.yaml")), ports=ports, children=tuple(children)
    )

    write_run_state(path, state)

    assert read_run_state(path) == state
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_reader_never_sees_a_half_written_state(tmp_path: Path) -> None:
    """The new content is complete under another name before it takes this one's place."""
    path = tmp_path / "run.json"
    write_run_state(path, RunState(supervisor=this_process("a", Path("t"))))
    with path.open("rb") as old:
        write_run_state(path, RunState(supervisor=this_process("b", Path("t"))))

        assert b'"a"' in old.read()
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.json"]


@pytest.mark.parametrize("content", [None, b"", b"{", b'{"supervisor": 3}'])
def test_an_unusable_state_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "run.json"
    if content is not None:
        path.write_bytes(content)

    assert read_run_state(path) is None


def test_a_second_lock_is_refused_with_the_holder_and_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = this_process("blue", Path("/topologies/blue.yaml"))
    lock = Lock(path, holder)

    with pytest.raises(LockHeldError) as refused:
        Lock(path, holder)

    assert refused.value.holder == holder
    assert f"pid {holder.pid}, since " in str(refused.value)
    assert "/topologies/blue.yaml" in str(refused.value)
    assert "supervise down --namespace blue" in str(refused.value)
    lock.release()


def test_a_released_lock_can_be_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = Lock(path, this_process("blue", Path("t")))
    assert is_held(path)

    first.release()

    assert not is_held(path)
    assert read_holder(path) is None
    Lock(path, this_process("blue", Path("t"))).release()


def test_a_lock_that_was_never_taken_is_not_held(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "lock")
