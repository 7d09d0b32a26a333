"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from actors.runtime import tasks


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while swallowed < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)

    await tasks.end(task)

    assert task.cancelled()
    assert swallowed == 2


async def test_a_task_that_failed_is_over_and_its_error_is_taken_note_of() -> None:
    async def failing() -> None:
        raise ValueError("no")

    task = asyncio.create_task(failing())

    await asyncio.wait([task])
    await tasks.end(task)

    assert task.done()


async def test_nothing_to_end_is_no_error() -> None:
    await tasks.end()


async def test_work_in_time_gives_its_result() -> None:
    assert await tasks.within(5.0, asyncio.sleep(0, "done")) == "done"


async def test_work_that_swallows_its_cancellation_is_ended_all_the_same() -> None:
    ended = asyncio.Event()

    async def stubborn() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    with pytest.raises(TimeoutError):
        await tasks.within(0.01, stubborn())

    assert ended.is_set()


async def test_the_error_of_work_is_passed_on() -> None:
    async def failing() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await tasks.within(5.0, failing())
