"""The thread in which TensorRT-LLM lives: one event loop, from its load to its shutdown.

It is not the loop of the worker, for two reasons. TensorRT-LLM wakes a task for every request and
token, and some of its calls block; here that holds up nobody. And what came out in one turn of this
loop goes to the worker as one report.
"""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from actors.engines.base import EngineFailed, Finish, Output, Request, RequestRefused
from actors.engines.prompts import unpack
from actors.engines.tensorrt_llm.events import EventReader, WrongBlockSize
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.engines.tensorrt_llm.ranks import Ranks
from actors.engines.tensorrt_llm.reports import CacheChanged, Measured, Report, Stepped
from actors.engines.tensorrt_llm.sampling import ends_of
from actors.engines.tensorrt_llm.session import Session, keeps
from actors.engines.tensorrt_llm.stats import Stats, read_stats
from actors.engines.tensorrt_llm.stream import Stream
from actors.engines.threaded import Ended, Failed, Started

log = structlog.get_logger("engine")


class _Run:
    """A live request: its stream, TensorRT-LLM's result, the task that reads it."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.result: Any = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        """Of a cancel that may not be answered, or of a prefill that may not be fetched."""


class Driver:
    """Runs in a thread of its own; what it has to say it gives to `report`."""

    def __init__(
        self,
        options: TensorRtLlmOptions,
        base_dir: Path,
        duty: str,
        ranks: Ranks | None,
        environ: MutableMapping[str, str],
        report: Callable[[Report], None],
    ) -> None:
        self._options = options
        self._make = lambda: Session(options, base_dir, duty, ranks, environ)
        self._report = report
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked = False
        self._session: Session | None = None
        self._vocabulary = 0
        self._runs: dict[int, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending: dict[int, Output] = {}
        self._stopping: asyncio.Event | None = None
        self._activity: tuple[asyncio.Event, ...] = ()
        """Set with every request; each poller waits for its own."""

    # -- called from the worker's loop ---------------------------------------------------------

    def run(self) -> None:
        """The thread's whole life."""
        asyncio.run(self._main())

    def submit(self, request: Request, cached_tokens: int) -> None:
        self._call(self._submit, request, cached_tokens)

    def cancel(self, request_id: int) -> None:
        self._call(self._cancel, request_id)

    def release(self, request_id: int) -> None:
        self._call(self._release, request_id)

    def stop(self) -> None:
        """May come at any time, also before the loop is there."""
        self._stop_asked = True
        if self._loop is not None:
            self._call(self._stop)

    def _call(self, function: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None, "`started` comes first"
        with contextlib.suppress(RuntimeError):  # it has ended; so has everything it could do
            self._loop.call_soon_threadsafe(function, *arguments)

    # -- life ----------------------------------------------------------------------------------

    async def _main(self) -> None:
        self._stopping = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stop_asked:
            self._stopping.set()
        try:
            # In a thread: it takes minutes, and this loop has to hear of a stop.
            self._session = await asyncio.to_thread(self._make)
            if not self._stopping.is_set():
                await self._begin(self._session)
            await self._stopping.wait()
        except EngineFailed as error:
            self._report(Failed(str(error)))
        except Exception as error:
            # The thread must not end without a word, whatever TensorRT-LLM raises.
            log.exception("engine_broke")
            self._report(Failed(f"{type(error).__name__}: {error}"))
        finally:
            await self._end()
            self._report(Ended())

    async def _begin(self, session: Session) -> None:
        await session.probe()
        first = await self._first_stats(session)
        info = session.info(first)
        self._vocabulary = info.vocabulary
        events = EventReader(info.block_tokens, info.blocks_total)
        polls: list[Callable[[], AsyncIterator[Report]]] = [lambda: _measured(session)]
        if info.publishes_cache_events:
            polls.append(lambda: _cache_changes(session, events))
        self._activity = tuple(asyncio.Event() for _ in polls)
        for poll, activity in zip(polls, self._activity, strict=True):
            self._spawn(self._poll(poll, activity))
        self._report(Started(info))

    async def _first_stats(self, session: Session) -> Stats:
        """How many blocks there are stands only in statistics, which come after a request."""
        with contextlib.suppress(AssertionError, NotImplementedError):
            async for data in session.stats():
                stats = read_stats(data)
                if stats.blocks_total is not None:
                    return stats
        return Stats()

    async def _end(self) -> None:
        for run in self._runs.values():
            if run.timer is not None:
                run.timer.cancel()
            if run.result is not None:
                self._abort(run)
        while self._tasks:
            # Until it holds: TensorRT-LLM waits with `wait_for`, which can swallow a cancellation.
            for task in self._tasks:
                task.cancel()
            await asyncio.wait(self._tasks, timeout=0.1)
        if self._session is None:
            return
        try:
            async with asyncio.timeout(self._options.shutdown_s):
                await asyncio.to_thread(self._session.shutdown)
        except TimeoutError:
            log.warning("shutdown_hangs", after_s=self._options.shutdown_s)
        except Exception:
            # It is going anyway.
            log.exception("shutdown_failed")

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _stop(self) -> None:
        assert self._stopping is not None
        self._stopping.set()

    def _fail(self, error: BaseException) -> None:
        """The executor is dead, or as good as dead."""
        self._report(Failed(f"TensorRT-LLM has failed: {type(error).__name__}: {error}"))

    # -- requests ------------------------------------------------------------------------------

    def _submit(self, request: Request, cached_tokens: int) -> None:
        assert self._session is not None
        ends = ends_of(request.sampling, self._session.eos_token_ids)
        run = _Run(Stream(request, ends, cached_tokens))
        self._runs[request.id] = run
        run.task = self._spawn(self._follow(run, unpack(request.prompt)))
        for activity in self._activity:
            activity.set()

    async def _follow(self, run: _Run, tokens: array[int]) -> None:
        """Read one request's results to their end."""
        session, stream = self._session, run.stream
        assert session is not None
        if stream.cancelled:
            self._emit(run, stream.fail(""))
            return
        # About this request alone, or, TypeError, about what its version takes.
        its_own: tuple[type[Exception], ...] = (
            RequestRefused, ValueError, TypeError, *session.api.request_errors,
        )  # fmt: skip
        try:
            run.result = session.submit(stream.request, tokens.tolist(), self._vocabulary)
            async for result in run.result:
                self._emit(run, stream.take(session.snapshot(result, stream.request)))
        except its_own as error:
            self._emit(run, stream.fail(str(error) or type(error).__name__))
        except Exception as error:
            # Nothing else is about one request: the executor has gone.
            log.exception("executor_failed", sequence=stream.request.id)
            self._fail(error)
        else:
            self._emit(run, stream.fail("TensorRT-LLM ended the request without a word"))

    def _emit(self, run: _Run, output: Output | None) -> None:
        if output is None:
            return
        number = output.id
        if output.handoff is not None:
            loop = asyncio.get_running_loop()
            run.timer = loop.call_later(self._options.handoff_ttl_s, self._expire, run)
        elif output.finish is not None:
            self._forget(run)
            if keeps(run.stream.request) and output.finish is Finish.STOP:
                self._abort(run)  # nobody will fetch what it keeps
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        before = self._pending.get(number)
        if before is None or before.finish is not None:
            # A number may be used again at once; its two lives do not share an output.
            if before is not None:
                self._flush()
            self._pending[number] = output
        else:
            before.join(output)

    def _flush(self) -> None:
        if self._pending:
            outputs = list(self._pending.values())
            self._pending.clear()
            self._report(Stepped(outputs))

    def _cancel(self, request_id: int) -> None:
        run = self._runs.get(request_id)
        if run is None or run.stream.cancelled:
            return
        run.stream.cancelled = True
        if run.stream.over:  # a prefill whose blocks are kept
            self._expire(run)
            return
        self._abort(run)
        loop = asyncio.get_running_loop()
        run.timer = loop.call_later(self._options.cancel_grace_s, self._give_up, run)

    def _give_up(self, run: _Run) -> None:
        """TensorRT-LLM does not answer an abort."""
        log.warning("abort_unanswered", sequence=run.stream.request.id)
        if run.task is not None:
            run.task.cancel()
        self._emit(run, run.stream.fail(""))

    def _expire(self, run: _Run) -> None:
        """Drop what a prefill keeps."""
        self._forget(run)
        self._abort(run)
        self._emit(run, Output(run.stream.request.id, [], finish=Finish.CANCELLED))

    def _release(self, request_id: int) -> None:
        # TensorRT-LLM frees the blocks itself once they have been fetched.
        run = self._runs.get(request_id)
        if run is not None and run.stream.over:
            self._forget(run)

    def _forget(self, run: _Run) -> None:
        if run.timer is not None:
            run.timer.cancel()
        if self._runs.get(run.stream.request.id) is run:
            del self._runs[run.stream.request.id]

    def _abort(self, run: _Run) -> None:
        if run.result is None:
            return
        try:
            run.result.abort()
        except Exception as error:  # noqa: BLE001 - a result that is over may not be abortable
            log.debug("abort_refused", sequence=run.stream.request.id, error=str(error))

    # -- statistics and cache events -----------------------------------------------------------

    async def _poll(
        self, poll: Callable[[], AsyncIterator[Report]], activity: asyncio.Event
    ) -> None:
        """Report what comes. An iteration that has ended yields nothing more until there is a new
        request: then there is nothing to ask for either."""
        while True:
            activity.clear()
            try:
                async for report in poll():
                    self._report(report)
            except (AssertionError, NotImplementedError, WrongBlockSize) as error:
                log.warning("not_measured", error=f"{type(error).__name__}: {error}")
                return
            except Exception as error:
                # The executor speaks to nobody any more.
                log.exception("executor_failed")
                self._fail(error)
                return
            await asyncio.sleep(self._options.poll_s)
            if not self._runs:
                await activity.wait()


async def _measured(session: Session) -> AsyncIterator[Report]:
    async for data in session.stats():
        yield Measured(read_stats(data))


async def _cache_changes(session: Session, reader: EventReader) -> AsyncIterator[Report]:
    async for event in session.events():
        lost = reader.seen.lost
        changes = reader.read(event)
        if reader.seen.lost > lost:
            log.warning("cache_events_lost", times=reader.seen.lost)
        if changes:
            yield CacheChanged(changes)
