"""Where samples of a profile are put."""

from __future__ import annotations

import pytest

from bench.profiling.stages import THE_REST, function_of, shares, stage_of

SERVER = "write (actors/ingress/server/connection.py:10)"
SESSION = "take_next (actors/ingress/session/machine.py:20)"
RUNNER = "run (asyncio/runners.py:118)"


@pytest.mark.parametrize(
    ("frames", "stage"),
    [
        ([RUNNER, SESSION], "sessions: whose a token is, and is it next"),
        ([RUNNER, SESSION, SERVER], "HTTP: connections and sockets"),
        ([RUNNER, SERVER, "loads (json/__init__.py:1)"], "HTTP: connections and sockets"),
        ([RUNNER, "f (/somewhere/actors/router/index.py:3)"], "router: index, accounts, choice"),
        ([RUNNER], THE_REST),
        (["run (actors/runtime/process.py:1)", RUNNER], THE_REST),
        ([RUNNER, "f (actors/access.py:3)"], THE_REST),
    ],
)
def test_a_sample_counts_for_the_innermost_of_our_own_files(frames: list[str], stage: str) -> None:
    assert stage_of(frames) == stage


def test_shares_add_up_without_threads_that_wait() -> None:
    waits = "_bootstrap (threading.py:1);_worker (concurrent/futures/thread.py:81)"
    raw = [f"{RUNNER};{SESSION} 3", f"{RUNNER};{SERVER} 1", f"{waits} 400"]

    assert shares(raw, stage_of) == {
        "sessions: whose a token is, and is it next": 0.75,
        "HTTP: connections and sockets": 0.25,
    }
    assert shares(raw, function_of) == {
        "take_next (actors/ingress/session/machine.py": 0.75,
        "write (actors/ingress/server/connection.py": 0.25,
    }
