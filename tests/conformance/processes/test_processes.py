"""The cases of OTP's list that are about processes, against real ones.

Each also stands under its name among the tests of the pure tree; here the same promise is held by
signals, process groups and exit codes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from supervisor.tree import Done, Restart, State, Strategy, SupervisorSpec
from tests.conformance.processes.shell import (
    DEAF,
    FAILS_AGAIN,
    POLITE,
    SLOW,
    as_supervised,
    running,
    script,
    stopped,
)

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pidfds are Linux's"),
]
WRITES_ON_TERM = "trap 'touch asked' TERM; echo ready; while :; do sleep 0.05; done"


def dynamic(text: str, count: int, **settings: object) -> SupervisorSpec:
    template = script("w", text, **settings)
    return SupervisorSpec(
        "pool",
        Strategy.SIMPLE_ONE_FOR_ONE,
        intensity=1000,
        period_s=1000.0,
        template=template,
        count=count,
        backoff=template.backoff,
    )


@as_supervised
async def test_sup_stop_infinity(tmp_path: Path) -> None:
    """A child that takes its time to end is waited for, however long."""
    async with running(tmp_path, [script("a", SLOW, shutdown_s=None)]) as shell:
        took_s = await stopped(shell)

        assert took_s >= 0.4
        assert shell.reason("a") == "shutdown"


@as_supervised
async def test_sup_stop_timeout(tmp_path: Path) -> None:
    """A child that listens ends in order; one that does not is killed after its time."""
    children = [script("polite", POLITE), script("deaf", DEAF, shutdown_s=0.3)]
    async with running(tmp_path, children) as shell:
        took_s = await stopped(shell)

        assert took_s >= 0.3
        assert (shell.reason("polite"), shell.reason("deaf")) == ("shutdown", "killed")


@as_supervised
async def test_sup_stop_timeout_dynamic(tmp_path: Path) -> None:
    """Instances are stopped side by side: ten deaf ones take the time of one."""
    async with running(tmp_path, [dynamic(DEAF, 10, shutdown_s=1.0)]) as shell:
        took_s = await stopped(shell)

        assert 1.0 <= took_s < 5.0
        assert [event.reason for event in shell.ended] == ["killed"] * 10


@as_supervised
async def test_sup_stop_brutal_kill(tmp_path: Path) -> None:
    """It is not asked: what it would do when asked, it does not do."""
    async with running(tmp_path, [script("a", WRITES_ON_TERM, brutal_kill=True)]) as shell:
        await stopped(shell)

        assert shell.reason("a") == "killed"
        assert not (tmp_path / "asked").exists()


@as_supervised
async def test_sup_stop_brutal_kill_dynamic(tmp_path: Path) -> None:
    """The same for all instances at once."""
    async with running(tmp_path, [dynamic(WRITES_ON_TERM, 5, brutal_kill=True)]) as shell:
        await stopped(shell)

        assert [event.reason for event in shell.ended] == ["killed"] * 5
        assert not (tmp_path / "asked").exists()


@as_supervised
async def test_sup_stop_race(tmp_path: Path) -> None:
    """A child that dies while another is being stopped is no reason to start anything."""
    async with running(tmp_path, [script("a", POLITE), script("slow", SLOW)]) as shell:
        stopping = asyncio.create_task(stopped(shell))
        await asyncio.sleep(0)  # the order is out; the child will take its time
        assert shell.state("slow") is State.STOPPING
        os.kill(shell.pid("a"), signal.SIGKILL)
        await stopping

        assert (shell.starts("a"), shell.starts("slow")) == (1, 1)
        assert shell.reason("a") == "killed by SIGKILL"


@as_supervised
async def test_sup_stop_manual(tmp_path: Path) -> None:
    """A child that was terminated is down and stays down; its siblings go on."""
    async with running(tmp_path, [script("a", POLITE), script("b", POLITE)]) as shell:
        assert await shell.terminate("a") == Done("a")

        assert (shell.state("a"), shell.state("b")) == (State.STOPPED, State.RUNNING)
        assert (shell.starts("a"), shell.starts("b")) == (1, 1)


@as_supervised
async def test_sup_stop_manual_timeout(tmp_path: Path) -> None:
    """The same for one that does not listen, after its time."""
    async with running(tmp_path, [script("a", DEAF, shutdown_s=0.2)]) as shell:
        assert await shell.terminate("a") == Done("a")

        assert shell.reason("a") == "killed"


@as_supervised
async def test_child_unlink(tmp_path: Path) -> None:
    """A child that cut its ties cannot hang terminate_child, nor outlive it.

    Adapted: it ignores SIGTERM, and what it has started has left its session.
    """
    text = f"setsid sleep 1000 & echo $! >escaped; {DEAF}"
    async with running(tmp_path, [script("a", text, shutdown_s=0.2)]) as shell:
        escaped = os.pidfd_open(int((tmp_path / "escaped").read_text()))
        try:
            assert await shell.terminate("a") == Done("a")

            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(escaped, ended.set)
            await ended.wait()
        finally:
            asyncio.get_running_loop().remove_reader(escaped)
            os.close(escaped)


@as_supervised
async def test_permanent_normal(tmp_path: Path) -> None:
    """Exit code 0 is no reason not to come back."""
    async with running(tmp_path, [script("a", "echo ready; sleep 0.1; exit 0")]) as shell:
        await shell.until_ended("a", times=2)

        assert shell.starts("a") >= 2


@as_supervised
async def test_transient_normal(tmp_path: Path) -> None:
    """Exit code 0 is the end of it."""
    text, once = "echo ready; sleep 0.1; exit 0", Restart.TRANSIENT
    async with running(tmp_path, [script("a", text, restart=once)]) as shell:
        await shell.until_ended("a")

        assert shell.state("a") is State.STOPPED


@as_supervised
async def test_transient_abnormal(tmp_path: Path) -> None:
    """Another exit code, or a signal, is not."""
    async with running(tmp_path, [script("a", POLITE, restart=Restart.TRANSIENT)]) as shell:
        os.kill(shell.pid("a"), signal.SIGSEGV)
        await shell.until_ended("a")
        await shell.until_running("a")

        assert shell.reason("a") == "killed by SIGSEGV"
        assert shell.starts("a") == 2


@pytest.mark.parametrize("strategy", [Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL])
@as_supervised
async def test_hanging_restart_loop(tmp_path: Path, strategy: Strategy) -> None:
    """While a child fails to start again and again, orders are taken and the end is not held up."""
    children = [script("a", POLITE), script("b", FAILS_AGAIN)]
    async with running(tmp_path, children, strategy=strategy) as shell:
        os.kill(shell.pid("b"), signal.SIGKILL)
        await shell.until_ended("b", times=5)

        assert await shell.terminate("a") == Done("a")
        await stopped(shell)


@as_supervised
async def test_hanging_restart_loop_rest_for_one(tmp_path: Path) -> None:
    """The same when those after it wait for it, and the one before it does not."""
    children = [script("a", POLITE), script("b", FAILS_AGAIN), script("c", POLITE)]
    async with running(tmp_path, children, strategy=Strategy.REST_FOR_ONE) as shell:
        os.kill(shell.pid("b"), signal.SIGKILL)
        await shell.until_ended("b", times=5)

        assert (shell.state("a"), shell.starts("c")) == (State.RUNNING, 1)
        await stopped(shell)


@as_supervised
async def test_hanging_restart_loop_simple(tmp_path: Path) -> None:
    """The same for an instance."""
    async with running(tmp_path, [dynamic(FAILS_AGAIN, 1)]) as shell:
        os.kill(shell.pid("w/0"), signal.SIGKILL)
        await shell.until_ended("w/0", times=5)

        await stopped(shell)
