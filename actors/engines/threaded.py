"""An engine that computes in a thread of its own: the side of it that lives on the event loop.

The thread says what happens in reports, one callback each; whatever the loop reads is a copy kept
on this side. What a report changes is the engine's own matter, but for how it begins and ends.
"""

from __future__ import annotations

import asyncio
import threading
from abc import abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from actors.engines.base import Engine, EngineFailed, Info, Output, Outputs
from actors.engines.journal import CacheJournal
from actors.messages.cache import CacheEvent


@dataclass(frozen=True, slots=True)
class Started:
    """The engine is loaded."""

    info: Info


@dataclass(frozen=True, slots=True)
class Failed:
    """The engine cannot go on."""

    error: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The thread's last word; it touches nothing any more."""


Life: TypeAlias = Started | Failed | Ended
"""What every engine's thread reports, beside what it computes."""

Work = TypeVar("Work")


class ThreadedEngine(Engine, Generic[Work]):
    """`Work`: what this engine's thread reports of its work."""

    def __init__(self, run: Callable[[], None]) -> None:
        """`run`: the thread's whole life. It reports by `_report_from_thread`."""
        # A daemon: what computes may hang for ever, and the process must be able to leave it.
        self._thread = threading.Thread(target=run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._info: Info | None = None
        self._changed = asyncio.Event()
        """Something for `start`, `steps` or `close` to look at."""
        self._steps: deque[list[Output]] = deque()
        self._journal = CacheJournal()
        self._failed: str | None = None
        self._closing = False
        self._ended = False

    async def start(self) -> Info:
        assert self._loop is None, "an engine starts once"
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        while self._info is None:
            if self._failed is not None:
                raise EngineFailed(self._failed)
            if self._ended:
                raise EngineFailed("the engine was closed while it started")
            await self._change()
        return self._info

    async def steps(self) -> AsyncIterator[Outputs]:
        while True:
            if self._closing:
                return
            if self._steps:
                outputs = self._steps.popleft()
                self._step_taken()
                yield Outputs(outputs)
            elif self._failed is not None:
                raise EngineFailed(self._failed)
            else:
                await self._change()

    def take_cache_events(self) -> list[CacheEvent]:
        return self._journal.take()

    def cache_snapshot(self) -> list[CacheEvent]:
        return self._journal.snapshot()

    async def close(self) -> None:
        self._closing = True
        self._changed.set()
        if self._loop is None:
            return
        self._stop_thread()
        while not self._ended:
            await self._change()

    @abstractmethod
    def _stop_thread(self) -> None:
        """Have the thread end; it answers with `Ended`. From any thread, and more than once."""

    @abstractmethod
    def _started(self, info: Info) -> None:
        """The engine is loaded."""

    @abstractmethod
    def _worked(self, report: Work) -> bool:
        """Take in what the thread has done; whether `steps` has something to look at."""

    def _step_taken(self) -> None:
        """The reader took one step's outputs."""

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _report_from_thread(self, report: Life | Work) -> None:
        assert self._loop is not None, "the thread was started by `start`"
        try:
            self._loop.call_soon_threadsafe(self._receive, report)
        except RuntimeError:
            # The loop was closed without `close`: nobody is left to report to.
            self._stop_thread()

    def _receive(self, report: Life | Work) -> None:
        if isinstance(report, Started):
            self._info = report.info
            self._started(report.info)
        elif isinstance(report, Failed):
            self._failed = self._failed or report.error
        elif isinstance(report, Ended):
            self._ended = True
        elif not self._worked(report):
            return
        self._changed.set()
