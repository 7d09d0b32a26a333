"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

CANCEL_AGAIN_S = 0.1


async def end(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended; what they raised is taken note of and dropped.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, which the NATS and etcd clients
    use, loses a cancellation that comes just as its wait is over.
    """
    while pending := [task for task in tasks if not task.done()]:
        for task in pending:
            task.cancel()
        await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()


async def within(timeout_s: float, work: Coroutine[Any, Any, T]) -> T:
    """The work's result, if it comes in time. Raises TimeoutError, and then the work has ended.

    For work that may swallow a cancellation: `asyncio.timeout` cancels once and waits.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task], timeout=timeout_s)
        if task.done():
            return task.result()
        raise TimeoutError
    finally:
        if not task.done():
            await end(task)
