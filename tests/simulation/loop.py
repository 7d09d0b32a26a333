"""An event loop for many simulated processes: virtual time, seeded order, nothing outside it.

A `Proc` stands for an operating-system process. Whatever a process starts, tasks, callbacks and
timers, belongs to it, because all of these carry the context they were started in. So a process
can be frozen (SIGSTOP: nothing of it runs, its timers and its input wait) and killed (SIGKILL:
nothing of it ever runs again, no `finally` either).

Within a process callbacks run in the order asyncio promises. Which process runs next is drawn from
a seeded generator. The clock stands still while anything can run, then jumps to the next timer.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
import socket
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from typing import Any, TypeVar

T = TypeVar("T")
MAX_TURNS = 400_000
"""Of one run. One that goes on for longer is going round in circles."""
PRUNE_TASKS = 128
KILLED = "signal 9"
THREAD_S = (0.0002, 0.01)
"""How long work in a thread takes."""


class Stuck(Exception):
    """Nothing can run, and no timer is set; or it goes on without end."""


class Proc:
    """A simulated process. `on_death` is called once, outside of it, with how it ended."""

    def __init__(self, loop: SimLoop, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self.dead = False
        self.doomed = False
        """It dies when what it does just now is done, and nothing more leaves it."""
        self.frozen = False
        self.ready: deque[asyncio.Handle] = deque()
        self.queued = False
        self.tasks: list[asyncio.Task[Any]] = []
        self.signals: dict[int, Callable[[], object]] = {}
        self.connections: list[Any] = []
        """Open stream transports, for the network to break."""
        self.on_death: list[Callable[[str], None]] = []
        self.context: Context = copy_context()
        self.context.run(CURRENT.set, self)
        self._loop = loop

    def post(self, callback: Callable[..., object], *args: Any) -> None:
        """Have the process run this, as if by input that has arrived."""
        if not self.dead:
            self._loop.call_soon(callback, *args, context=self.context)

    def spawn(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        """Start a task of the process."""
        return self.context.run(self._loop.create_task, work, name=name)

    def freeze(self) -> None:
        self.frozen = True

    def thaw(self) -> None:
        self.frozen = False
        self._loop.enqueue(self)

    def signal(self, number: int) -> None:
        """Send a signal that it handles, or dies of."""
        if number in self.signals:
            self.post(self.signals[number])
        else:
            self.kill(f"signal {number}")

    def kill(self, how: str = KILLED) -> None:
        """End it at once. Its tasks stay as they are: a dead process cleans nothing up."""
        if self.dead:
            return
        self.dead = True
        self.ready.clear()
        for tell in self.on_death:
            tell(how)

    def __repr__(self) -> str:
        return self.name


CURRENT: ContextVar[Proc] = ContextVar("CURRENT")


class SimLoop(asyncio.AbstractEventLoop):
    """See the module. `world` is the process of the simulation itself, which is never touched."""

    def __init__(self, seed: int) -> None:
        self.order = random.Random(seed)
        self.now = 0.0
        self.turns = 0
        self.errors: list[str] = []
        """What was raised where nobody could catch it."""
        self.after_turn: Callable[[], None] = lambda: None
        self.listeners: dict[tuple[Proc, int], Any] = {}
        self._runnable: list[Proc] = []
        self._timers: list[tuple[float, int, asyncio.TimerHandle, Proc]] = []
        self._sequence = 0
        self._pids = 0
        self.procs: list[Proc] = []
        self.world = self.process("world")

    def process(self, name: str) -> Proc:
        self._pids += 1
        proc = Proc(self, name, self._pids)
        self.procs.append(proc)
        return proc

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work of the simulation itself to its end."""
        asyncio.events._set_running_loop(self)
        try:
            task = self.world.spawn(work, "simulation")
            while not task.done():
                self._turn()
            return task.result()
        finally:
            asyncio.events._set_running_loop(None)

    def bury(self) -> None:
        """Let go of everything that is still pending, quietly. The loop is of no more use."""
        asyncio.events._set_running_loop(self)
        try:
            for proc in self.procs:
                for task in proc.tasks:
                    if not task.done():
                        setattr(task, "_log_destroy_pending", False)  # noqa: B010 - not in its stub
                        with contextlib.suppress(BaseException):
                            proc.context.run(task.get_coro().close)
                proc.tasks.clear()
                proc.ready.clear()
            self._timers.clear()
        finally:
            asyncio.events._set_running_loop(None)

    def enqueue(self, proc: Proc) -> None:
        if proc.ready and not proc.queued and not proc.frozen and not proc.dead:
            proc.queued = True
            self._runnable.append(proc)

    def _turn(self) -> None:
        """One process does what is ready for it, as one iteration of its own loop would."""
        if not self._runnable:
            self._advance()
            return
        self.turns += 1
        if self.turns > MAX_TURNS:
            raise Stuck(f"still busy after {MAX_TURNS} turns, at {self.now:.3f} s")
        runnable = self._runnable
        index = int(self.order.random() * len(runnable))
        proc = runnable[index]
        last = runnable.pop()
        if last is not proc:
            runnable[index] = last
        proc.queued = False
        if proc.frozen:
            return
        ready = proc.ready
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle.cancelled():
                handle._run()
                if proc.doomed:
                    proc.kill()
                if proc.dead:
                    break
        self.enqueue(proc)
        self.after_turn()

    def _advance(self) -> None:
        timers = self._timers
        while timers and (timers[0][2].cancelled() or timers[0][3].dead):
            heapq.heappop(timers)
        if not timers:
            raise Stuck(f"nothing can run and no timer is set, at {self.now:.3f} s")
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            _, _, handle, proc = heapq.heappop(timers)
            if not handle.cancelled() and not proc.dead:
                proc.ready.append(handle)
                self.enqueue(proc)

    # -- what asyncio asks of a loop -----------------------------------------------------------

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        context = copy_context() if context is None else context
        handle = asyncio.Handle(callback, args, self, context)
        proc = context.get(CURRENT)
        assert proc is not None, "everything belongs to a process"
        if not proc.dead:
            proc.ready.append(handle)
            if not proc.queued:
                self.enqueue(proc)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        context = copy_context() if context is None else context
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        proc = context.get(CURRENT)
        assert proc is not None, "everything belongs to a process"
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, handle, proc))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Asked by a timer that is cancelled; it is passed over when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        proc = CURRENT.get() if context is None else context[CURRENT]
        task: asyncio.Task[T] = asyncio.Task(coro, loop=self, name=name, context=context)
        # Kept, or a dead process's tasks would be collected, and their `finally` would run.
        proc.tasks.append(task)
        if len(proc.tasks) > PRUNE_TASKS and not proc.dead:
            proc.tasks = [one for one in proc.tasks if not one.done()]
        return task

    def run_in_executor(  # type: ignore[override]
        self, _executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """What a thread would do is done later, all at once."""
        future = self.create_future()

        def work() -> None:
            if future.done():
                return
            try:
                future.set_result(func(*args))
            except Exception as error:  # noqa: BLE001 - it belongs to whoever awaits
                future.set_exception(error)

        self.call_later(self.order.uniform(*THREAD_S), work)
        return future

    async def getaddrinfo(  # type: ignore[override]
        self, host: str, port: int, **_: object
    ) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port))]

    def add_reader(  # type: ignore[override]
        self, fd: Any, callback: Callable[..., object], *args: Any
    ) -> None:
        """Of a listening socket of this world."""
        fd.reader(lambda: callback(*args))

    def remove_reader(self, fd: Any) -> bool:
        fd.reader(None)
        return True

    async def connect_accepted_socket(
        self, protocol_factory: Callable[[], Any], sock: Any, **_: object
    ) -> tuple[Any, Any]:
        return sock, sock.open(protocol_factory)

    def add_signal_handler(  # type: ignore[override]
        self, sig: int, callback: Callable[..., object], *args: Any
    ) -> None:
        CURRENT.get().signals[sig] = lambda: callback(*args)

    def remove_signal_handler(self, sig: int) -> bool:
        return CURRENT.get().signals.pop(sig, None) is not None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        proc = CURRENT.get(self.world)
        error = context.get("exception")
        if not proc.dead:
            self.errors.append(f"{proc}: {context.get('message')}: {error!r}")

    async def shutdown_asyncgens(self) -> None:
        """None are tracked."""
