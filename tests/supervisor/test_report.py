from __future__ import annotations

from supervisor.report import culprit, describe
from supervisor.tree import NORMAL, SHUTDOWN, Kind, Reason
from supervisor.tree.reason import FAILED_TO_START, MAX_INTENSITY

BOOM = Reason(Kind.ABNORMAL, "exit code 70, an actor failed: boom")


def test_a_reason_reads_from_the_outside_to_what_really_happened() -> None:
    late = Reason(Kind.START_FAILED, "ended before it was ready", "worker/1", BOOM)
    start = Reason(Kind.START_FAILED, FAILED_TO_START, "worker/1", late)

    text = describe(start)

    assert text == (
        "worker/1 could not start: ended before it was ready: exit code 70, an actor failed: boom"
    )


def test_the_culprit_is_the_innermost_child() -> None:
    inner = Reason(Kind.SHUTDOWN, MAX_INTENSITY, "worker/1", BOOM)
    outer = Reason(Kind.SHUTDOWN, MAX_INTENSITY, "team", inner)

    assert culprit(outer) == "worker/1"
    assert describe(outer).startswith("team failed too often: worker/1 failed too often: exit")


def test_an_end_in_order_has_no_culprit() -> None:
    assert culprit(SHUTDOWN) == ""
    assert describe(NORMAL) == "normal"
