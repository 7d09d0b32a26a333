from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.exits import Asked, reason_of
from supervisor.launchers.local import Exit
from supervisor.tree import KILLED, NORMAL, SHUTDOWN, Kind

ENDINGS = st.one_of(
    st.integers(0, 255).map(lambda code: Exit(code=code)),
    st.sampled_from([int(number) for number in signal.Signals]).map(lambda n: Exit(signal=n)),
)


def test_an_unasked_exit_with_0_is_normal() -> None:
    assert reason_of(Exit(code=0), asked=Asked.NOTHING, node=True) == NORMAL


@pytest.mark.parametrize("ending", [Exit(code=0), Exit(signal=15), Exit(signal=2)])
def test_an_end_in_order_after_our_stop_is_a_shutdown(ending: Exit) -> None:
    assert reason_of(ending, asked=Asked.TO_LEAVE, node=False) == SHUTDOWN


def test_our_own_kill_is_told_from_anybody_else_s() -> None:
    ours = reason_of(Exit(signal=9), asked=Asked.NO_MORE, node=True)
    theirs = reason_of(Exit(signal=9), asked=Asked.TO_LEAVE, node=True)

    assert ours == KILLED
    assert theirs.kind is Kind.KILLED
    assert theirs != KILLED


def test_a_crash_names_the_signal() -> None:
    reason = reason_of(Exit(signal=11), asked=Asked.NOTHING, node=False)

    assert (reason.kind, reason.detail) == (Kind.ABNORMAL, "killed by SIGSEGV")


def test_a_node_s_exit_code_is_explained() -> None:
    reason = reason_of(Exit(code=73), asked=Asked.NOTHING, node=True, tail=["who is there"])

    assert reason.detail == "exit code 73, the name is taken: who is there"


def test_a_node_without_its_plane_is_not_to_blame_and_a_server_of_that_code_is() -> None:
    node = reason_of(Exit(code=69), asked=Asked.NOTHING, node=True)
    server = reason_of(Exit(code=69), asked=Asked.NOTHING, node=False)

    assert (node.kind, server.kind) == (Kind.UNAVAILABLE, Kind.ABNORMAL)


def test_a_node_that_its_plane_does_not_let_in_is_told_from_one_without() -> None:
    reason = reason_of(Exit(code=77), asked=Asked.NOTHING, node=True)

    assert reason.kind is Kind.REFUSED


def test_what_the_node_said_is_better_than_its_last_line() -> None:
    reason = reason_of(
        Exit(code=70), asked=Asked.NOTHING, node=True, said="a/0 failed: boom", tail=["}"]
    )

    assert reason.detail == "exit code 70, an actor failed: a/0 failed: boom"


def test_a_server_s_exit_code_is_not_a_node_s() -> None:
    reason = reason_of(Exit(code=70), asked=Asked.NOTHING, node=False, tail=["bind: in use"])

    assert reason.detail == "exit code 70: bind: in use"


@given(ENDINGS, st.sampled_from(Asked), st.text(max_size=2000))
def test_only_ends_without_a_fault_are_expected_and_details_stay_short(
    ending: Exit, asked: Asked, said: str
) -> None:
    reason = reason_of(ending, asked=asked, node=True, said=said)

    polite = ending.signal in {signal.SIGTERM, signal.SIGINT} and asked is not Asked.NOTHING
    assert reason.expected == (ending.code == 0 or polite)
    assert "\n" not in reason.detail
    assert len(reason.detail) < 400


@pytest.mark.parametrize("ending", [Exit(signal=9), Exit()])
@pytest.mark.parametrize("asked", Asked)
def test_the_watchdog_s_verdict_is_the_reason_however_little_the_end_tells(
    ending: Exit, asked: Asked
) -> None:
    reason = reason_of(ending, asked=asked, condemned="hung: no answer", said="fine", node=False)

    assert (reason.kind, reason.detail) == (Kind.ABNORMAL, "hung: no answer")


def test_whoever_ends_by_itself_just_before_the_kill_has_its_own_reason() -> None:
    reason = reason_of(Exit(code=3), asked=Asked.NOTHING, condemned="hung: no answer", node=True)

    assert reason.detail == "exit code 3"
