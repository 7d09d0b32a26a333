"""The engine as a worker sees it: lives on the event loop, and never blocks it.

TensorRT-LLM runs in a thread with a loop of its own (`driver`). This side keeps the books of what
is live and copies of what the loop reads.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from actors.engines.base import Info, Output, Request, RequestRefused
from actors.engines.prompts import refusal
from actors.engines.tensorrt_llm.books import Books
from actors.engines.tensorrt_llm.driver import Driver
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.engines.tensorrt_llm.ranks import Ranks
from actors.engines.tensorrt_llm.reports import CacheChanged, Measured, Stepped, Work
from actors.engines.tensorrt_llm.session import process_environ
from actors.engines.threaded import ThreadedEngine
from actors.kv.blocks import Added
from actors.kv.hashing import sequence_hashes
from actors.messages.cache import Load

MAX_UNREAD = 64
"""Lists of outputs that nobody has read yet; further ones are joined to the last."""


class TensorRtLlmEngine(ThreadedEngine[Work]):
    """TensorRT-LLM's LLM API. `duty` says whether it has to hand over: `context` and `generation`
    engines get a way to transfer KV blocks, an `aggregated` one does without. `ranks` are those
    that MPI has started for it; None leaves it to TensorRT-LLM to start some."""

    def __init__(
        self,
        options: TensorRtLlmOptions,
        *,
        base_dir: Path,
        duty: str = "aggregated",
        ranks: Ranks | None = None,
        environ: MutableMapping[str, str] | None = None,
    ) -> None:
        self._options = options
        self._driver = Driver(
            options,
            base_dir,
            duty,
            ranks,
            process_environ() if environ is None else environ,
            self._report_from_thread,
        )
        super().__init__(self._driver.run)
        self._duty = duty
        self._books = Books()
        self._known: set[int] = set()
        """Sequence hashes of the blocks in the cache, as far as told."""
        self._progress = 0

    def submit(self, request: Request) -> None:
        info = self._info
        if info is None or self._closing or self._failed is not None:
            raise RequestRefused("the engine is not running")
        if request.sampling.grammar is not None:
            raise RequestRefused("structured output is not possible with TensorRT-LLM here")
        reason = refusal(request, info)
        if reason is not None:
            raise RequestRefused(reason)
        if self._duty == "aggregated" and request.phase != "whole":
            raise RequestRefused("this engine was not made to hand over")
        if request.id in self._books:
            raise RequestRefused(f"request {request.id} is running already")
        if len(self._books) >= info.max_running + self._options.max_waiting:
            raise RequestRefused(f"{len(self._books)} requests run or wait already")
        self._books.submitted(request)
        self._driver.submit(request, self._cached_tokens(request, info))

    def cancel(self, request_id: int) -> None:
        if request_id in self._books:
            self._driver.cancel(request_id)

    def release(self, request_id: int) -> None:
        if self._books.holds(request_id):
            self._books.close(request_id)
            self._driver.release(request_id)

    def load(self) -> Load:
        return self._books.load()

    @property
    def progress(self) -> int:
        return self._progress

    @property
    def patience_s(self) -> float:
        return self._options.patience_s

    @property
    def busy(self) -> bool:
        return len(self._books) > 0

    def _cached_tokens(self, request: Request, info: Info) -> int:
        """How much of the prompt the cache holds, by what it has told so far."""
        blocks = 0
        if self._known and request.phase != "decode":
            for named in sequence_hashes(request.prompt, info.block_tokens):
                if named not in self._known:
                    break
                blocks += 1
        return blocks * info.block_tokens

    def _stop_thread(self) -> None:
        self._driver.stop()

    def _started(self, info: Info) -> None:
        self._books.started(info)

    def _worked(self, report: Work) -> bool:
        match report:
            case Stepped(outputs):
                self._receive_step(outputs)
                return True
            case CacheChanged(changes):
                self._journal.apply(changes)
                for change in changes:
                    if isinstance(change, Added):
                        self._known.update(change.hashes)
                    else:
                        self._known.difference_update(change.hashes)
            case Measured(stats):
                self._books.measured(stats)
                self._progress += 1
        return False

    def _receive_step(self, outputs: list[Output]) -> None:
        self._progress += 1
        # What was released here meanwhile is nobody's any more.
        outputs = [output for output in outputs if output.id in self._books]
        for output in outputs:
            self._books.produced(output)
        if not outputs or self._closing:
            return
        if len(self._steps) < MAX_UNREAD:
            self._steps.append(outputs)
            return
        last = {output.id: output for output in self._steps[-1]}
        both = [last[output.id] for output in outputs if output.id in last]
        if any(output.finish is not None for output in both):
            # A number is used again already; its two lives do not share an output.
            self._steps.append(outputs)
            return
        for output in outputs:
            before = last.get(output.id)
            if before is None:
                self._steps[-1].append(output)
            else:
                before.join(output)
