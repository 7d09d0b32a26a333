"""Runs `async def test_...` on a fresh uvloop each, with a deadline, leaving nothing behind.

    async def test_an_ask_is_answered() -> None: ...

    @pytest.mark.deadline(60)                # seconds; 30 when not said
    async def test_something_long() -> None: ...

A test fails when it is not done by its deadline, when tasks of its loop still run once it has
returned (close what you open), or when a callback or a forgotten task raised. Fixtures are plain
functions; what must be opened on the test's loop is opened in the test, by `async with`.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import hypothesis
import pytest
import uvloop

# Tests start processes while gRPC's threads run; its fork handlers, meant for children that go on
# using gRPC, can then hang the child before it reaches its exec. Read when gRPC is first imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# How fast examples are made and run depends on what else the machine does.
hypothesis.settings.register_profile(
    "house", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("house")

DEADLINE_S = 30.0
WIND_DOWN_S = 1.0
"""How long tasks that are already ending, in a library's clean-up for instance, may still take."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"deadline(seconds): of an async test, in place of {DEADLINE_S:g} s"
    )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What all test modules import stays: the collector need not look at it, now or later."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that the quick ones fill up the end of a run in parallel."""
    slow = {
        item.path
        for item in items
        if item.get_closest_marker("process") or item.get_closest_marker("slow")
    }
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine function; leave every other test to pytest."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    marker = pyfuncitem.get_closest_marker("deadline")
    deadline_s = DEADLINE_S if marker is None else float(marker.args[0])
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    run_on_fresh_loop(lambda: pyfuncitem.obj(**arguments), deadline_s=deadline_s)
    return True


def run_on_fresh_loop(
    test: Callable[[], Awaitable[None]], *, deadline_s: float = DEADLINE_S
) -> None:
    """Run to the end and fail for what is left over; see the module."""
    complaints: list[str] = []

    def note(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        complaints.append(f"{context.get('message')}: {context.get('exception')!r}")

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(note)
        async with asyncio.timeout(deadline_s):
            await test()
        await _wind_down()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    if complaints:
        pytest.fail("raised outside the test:\n" + "\n".join(complaints))


async def _wind_down() -> None:
    """Fail when tasks other than this one go on."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        _, left = await asyncio.wait(left, timeout=WIND_DOWN_S)
    if left:
        names = ", ".join(sorted(f"{task.get_name()} ({task.get_coro()})" for task in left))
        pytest.fail(f"tasks still running at the end: {names}")
