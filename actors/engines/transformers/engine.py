"""The engine as a worker sees it: lives on the event loop, and never blocks it.

The model runs in a thread (`driver.py`). This side puts commands into the thread's queue and takes
its reports, one callback a step; whatever the loop reads (load, cache events) is a copy kept here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator

from actors.engines.base import (
    Engine,
    EngineFailed,
    Finish,
    Info,
    Output,
    Request,
    RequestRefused,
)
from actors.engines.journal import CacheJournal
from actors.engines.prompts import refusal
from actors.engines.transformers.commands import (
    Cancel,
    Consumed,
    Ended,
    Failed,
    Release,
    Report,
    Started,
    Stepped,
    Stop,
    Submit,
)
from actors.engines.transformers.driver import Driver
from actors.engines.transformers.options import TransformersOptions
from actors.messages.cache import CacheEvent, Load


class TransformersEngine(Engine):
    """Causal language models with full attention, through Hugging Face Transformers."""

    def __init__(self, options: TransformersOptions) -> None:
        self._options = options
        self._driver = Driver(options, self._report_from_thread)
        self._thread = threading.Thread(target=self._driver.run, name="engine", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._info: Info | None = None
        self._changed = asyncio.Event()
        """Something for `start`, `steps` or `close` to look at."""
        self._steps: deque[list[Output]] = deque()
        self._failed: str | None = None
        self._closing = False
        self._ended = False
        self._live: set[int] = set()
        """Requests whose number is taken."""
        self._held: set[int] = set()
        """Those of them that are finished prefills, kept for a successor."""
        self._submitted = 0
        self._taken = 0
        self._load = Load()
        self._journal = CacheJournal()

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

    def submit(self, request: Request) -> None:
        if self._info is None or self._closing or self._failed is not None:
            raise RequestRefused("the engine is not running")
        reason = refusal(request, self._info)
        if reason is not None:
            raise RequestRefused(reason)
        if request.id in self._live:
            raise RequestRefused(f"request {request.id} is running already")
        waiting = self._load.waiting + self._submitted - self._taken
        if waiting >= self._options.max_waiting:
            raise RequestRefused(f"{waiting} requests wait already")
        self._live.add(request.id)
        self._submitted += 1
        self._driver.inbox.put(Submit(request))

    def cancel(self, request_id: int) -> None:
        if request_id in self._live:
            # Its number stays taken until the final output; a release would be too late.
            self._held.discard(request_id)
            self._driver.inbox.put(Cancel(request_id))

    def release(self, request_id: int) -> None:
        if request_id in self._held:
            self._forget(request_id)
            self._driver.inbox.put(Release(request_id))

    async def steps(self) -> AsyncIterator[list[Output]]:
        while True:
            if self._closing:
                return
            if self._steps:
                outputs = self._steps.popleft()
                self._driver.inbox.put(Consumed())
                yield outputs
            elif self._failed is not None:
                raise EngineFailed(self._failed)
            else:
                await self._change()

    def load(self) -> Load:
        return self._load

    def take_cache_events(self) -> list[CacheEvent]:
        return self._journal.take()

    def cache_snapshot(self) -> list[CacheEvent]:
        return self._journal.snapshot()

    @property
    def progress(self) -> int:
        return self._driver.progress

    @property
    def patience_s(self) -> float:
        return self._driver.patience_s

    @property
    def busy(self) -> bool:
        return not (self._driver.idle and self._driver.inbox.empty())

    async def close(self) -> None:
        self._closing = True
        self._changed.set()
        if self._loop is None:
            return
        self._driver.inbox.put(Stop())
        while not self._ended:
            await self._change()
        if not self._driver.lost:
            # The thread has said its last word; this returns at once.
            self._thread.join()

    def _forget(self, request_id: int) -> None:
        self._live.discard(request_id)
        self._held.discard(request_id)

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _report_from_thread(self, report: Report) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._receive, report)
        except RuntimeError:
            # The loop was closed without `close`: nobody is left to report to.
            self._driver.inbox.put(Stop())

    def _receive(self, report: Report) -> None:
        match report:
            case Started(info):
                self._info = info
                self._load = Load(blocks_total=info.blocks_total, max_running=info.max_running)
            case Stepped():
                self._receive_step(report)
            case Failed(error):
                self._failed = error
            case Ended():
                self._ended = True
        self._changed.set()

    def _receive_step(self, step: Stepped) -> None:
        self._load = step.load
        self._taken = step.taken
        self._journal.apply(step.changes)
        outputs = step.outputs
        # A number that was released here meanwhile may belong to another request by now.
        for request_id in self._held.intersection(step.expired):
            outputs.append(Output(request_id, [], Finish.CANCELLED))
        for output in outputs:
            if output.finish is not None:
                self._forget(output.id)
            elif output.handoff is not None:
                self._held.add(output.id)
        if outputs and not self._closing:
            self._steps.append(outputs)
        elif step.expired:
            self._driver.inbox.put(Consumed())
