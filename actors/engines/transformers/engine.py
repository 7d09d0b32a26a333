"""The engine as a worker sees it: lives on the event loop, and never blocks it.

The model runs in a thread (`driver.py`). This side puts commands into the thread's queue and takes
its reports, one callback a step; whatever the loop reads (load, cache events) is a copy kept here.
"""

from __future__ import annotations

from collections.abc import Mapping

from actors.engines.base import Finish, Info, Output, Request, RequestRefused
from actors.engines.prompts import refusal
from actors.engines.threaded import ThreadedEngine
from actors.engines.transformers.commands import (
    Cancel,
    Consumed,
    Release,
    Stepped,
    Stop,
    Submit,
)
from actors.engines.transformers.driver import Driver
from actors.engines.transformers.options import TransformersOptions
from actors.messages.cache import Load


class TransformersEngine(ThreadedEngine[Stepped]):
    """Causal language models with full attention, through Hugging Face Transformers."""

    def __init__(self, options: TransformersOptions) -> None:
        self._options = options
        self._driver = Driver(options, self._report_from_thread)
        super().__init__(self._driver.run)
        self._live: set[int] = set()
        """Requests whose number is taken."""
        self._held: set[int] = set()
        """Those of them that are finished prefills, kept for a successor."""
        self._submitted = 0
        self._taken = 0
        self._load = Load()

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

    def load(self) -> Load:
        return self._load

    @property
    def progress(self) -> int:
        return self._driver.progress

    @property
    def handoff_refusals(self) -> Mapping[str, int]:
        return self._driver.handoff_refusals

    @property
    def patience_s(self) -> float:
        return self._driver.patience_s

    @property
    def busy(self) -> bool:
        return not (self._driver.idle and self._driver.inbox.empty())

    async def close(self) -> None:
        await super().close()
        if self._ended and not self._driver.lost:
            # The thread has said its last word; this returns at once.
            self._thread.join()

    def _stop_thread(self) -> None:
        self._driver.inbox.put(Stop())

    def _started(self, info: Info) -> None:
        self._load = Load(blocks_total=info.blocks_total, max_running=info.max_running)

    def _step_taken(self) -> None:
        self._driver.inbox.put(Consumed())

    def _forget(self, request_id: int) -> None:
        self._live.discard(request_id)
        self._held.discard(request_id)

    def _worked(self, step: Stepped) -> bool:
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
        return True
