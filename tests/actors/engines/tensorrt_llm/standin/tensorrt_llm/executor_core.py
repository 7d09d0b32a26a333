"""The executor: a thread that steps, and what its callers see of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import tempfile
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xxhash

from .cache import Cache, Held

EOS = 255
BAD_TOKEN = 253
"""In a prompt: the request fails, the engine goes on."""
FATAL_TOKEN = 252
"""In a prompt: the executor dies."""
_MAGIC = b"\xff\xfe"
_LOOK_S = 0.002


class RequestError(RuntimeError):
    """About one request."""


class CppExecutorError(RuntimeError):
    """About all of them."""


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass
class CompletionOutput:
    index: int = 0
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[Any] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    disaggregated_params: Any = None


@dataclass(slots=True)
class Response:
    tokens: list[int]
    logprobs: list[Any]
    final: bool = False
    reason: str | None = None
    params: Any = None
    error: BaseException | None = None


class GenerationResult:
    """What `generate_async` returns: itself its iterator, and changed by every step."""

    def __init__(self, executor: Executor, request_id: int, prompt: list[int]) -> None:
        self.request_id = request_id
        self.prompt = None
        self.prompt_token_ids = prompt
        self.outputs = [CompletionOutput()]
        self.finished = False
        self._executor = executor
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
            self._queue: asyncio.Queue[Response] | None = asyncio.Queue()
        except RuntimeError:
            self._loop = self._queue = None

    def push(self, response: Response) -> None:
        if self._loop is not None and self._queue is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._queue.put_nowait, response)

    def abort(self) -> None:
        self._executor.abort(self.request_id)

    def __aiter__(self) -> GenerationResult:
        return self

    async def __anext__(self) -> GenerationResult:
        assert self._queue is not None, (
            "The asyncio event loop was not present during initialization, so async operations "
            "are not available."
        )
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the result's queue is bound to a different event loop")
        if self.finished:
            raise StopAsyncIteration
        self._take(await self._queue.get())
        return self

    def __await__(self) -> Any:
        return self._whole().__await__()

    async def _whole(self) -> GenerationResult:
        async for _ in self:
            pass
        return self

    def _take(self, response: Response) -> None:
        if response.error is not None:
            self.finished = True
            raise response.error
        output = self.outputs[0]
        output.token_ids.extend(response.tokens)
        output.logprobs.extend(response.logprobs)
        output.finish_reason = response.reason
        if response.params is not None:
            output.disaggregated_params = response.params
        self.finished = response.final


class IterationResult:
    """Statistics or events: one for an executor, on one loop, and at its end when idle."""

    def __init__(self, limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Any] = asyncio.Queue()
        self._limit = limit
        self.timeout = 2.0
        self.done = False

    def push(self, item: Any) -> None:
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._put, item)

    def _put(self, item: Any) -> None:
        if self._queue.qsize() >= self._limit:
            self._queue.get_nowait()
        self._queue.put_nowait(item)

    def __aiter__(self) -> IterationResult:
        return self

    async def __anext__(self) -> Any:
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the iteration's queue is bound to a different event loop")
        if self.done:
            raise StopAsyncIteration
        try:
            return await asyncio.wait_for(self._queue.get(), self.timeout)
        except TimeoutError:
            self.done = True
            raise StopAsyncIteration from None

    def now(self, timeout: float) -> list[Any]:
        """As over RPC: blocks the calling thread."""
        items = []
        while not self._queue.empty():
            items.append(self._queue.get_nowait())
        if not items:
            time.sleep(timeout)
        return items


@dataclass
class Active:
    id: int
    prompt: list[int]
    tokens: list[int]
    params: Any
    result: GenerationResult
    streaming: bool
    kind: str | None
    handed: Any = None
    held: Held | None = None
    noise: random.Random | None = None
    produced: int = 0
    unsent: list[int] = field(default_factory=list)
    unsent_logprobs: list[Any] = field(default_factory=list)


class Executor:
    """Steps as fast as it can while there is work."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.cache: Cache = settings["cache"]
        self.stats_result: IterationResult | None = None
        self.events_result: IterationResult | None = None
        self.dead: BaseException | None = None
        self.aborted: list[int] = []
        self.steps = 0
        self._waiting: deque[Active] = deque()
        self._active: dict[int, Active] = {}
        self._kept: dict[int, tuple[Active, Path]] = {}
        self._next_id = 2**63 - 2**40  # ids do not fit into a float
        self._condition = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True)
        self._thread.start()

    # -- for the LLM ---------------------------------------------------------------------------

    def enqueue(
        self, prompt: list[int], params: Any, *, streaming: bool, disaggregated: Any
    ) -> GenerationResult:
        if self.dead is not None:
            raise self.dead
        if self._closing:
            raise RuntimeError("LLM is shutting down")
        self._first_request()
        with self._condition:
            self._next_id += 1
            result = GenerationResult(self, self._next_id, prompt)
            kind = getattr(disaggregated, "request_type", None)
            active = Active(
                self._next_id, prompt, list(prompt), params, result, streaming, kind, disaggregated
            )
            if not params.greedy and self.settings["samples"]:
                active.noise = random.Random(params.seed)
            if self.settings["cached_tokens"]:
                result.cached_tokens = 0  # type: ignore[attr-defined]
            self._waiting.append(active)
            self._condition.notify_all()
        return result

    def _first_request(self) -> None:
        if self.stats_result is None:
            with contextlib.suppress(RuntimeError):
                self.stats_result = IterationResult(1000)
                self.events_result = IterationResult(100_000)
        for one in (self.stats_result, self.events_result):
            if one is not None:
                one.done = False

    def abort(self, request_id: int) -> None:
        with self._condition:
            self.aborted.append(request_id)
            self._condition.notify_all()

    def crash(self, error: BaseException) -> None:
        """From now on nothing works, and everybody hears of it."""
        with self._condition:
            self.dead = error
            everyone = [*self._active.values(), *self._waiting]
            self._active.clear()
            self._waiting.clear()
        for active in everyone:
            active.result.push(Response([], [], error=error))

    def shutdown(self) -> None:
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        self._thread.join()
        if self.settings["team"] is not None:
            self.settings["team"].shutdown()

    # -- the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._condition:
                while not (self._waiting or self._active or self.aborted or self._closing):
                    self._condition.wait(_LOOK_S if self._kept else None)
                    self._look_for_fetches()
                if self._closing:
                    return
                self._step()
            # Others get the lock, and the interpreter.
            time.sleep(0)

    def _step(self) -> None:
        self._look_for_fetches()
        self._do_aborts()
        self._admit()
        if self.settings["stats"] and self.stats_result is not None:
            # Of the iteration's beginning: the last one still counts who ends in it.
            self.stats_result.push(self._stats())
        if self._active and self.settings["team"] is not None:
            self.settings["team"].step()
        for active in list(self._active.values()):
            self._advance(active)
        self.steps += 1
        self._push_events()

    def _push_events(self) -> None:
        events = self.cache.events
        if events and self.events_result is not None:
            if self.settings["event_lists"]:
                self.events_result.push(list(events))
            else:
                for event in events:
                    self.events_result.push(event)
            events.clear()

    def _admit(self) -> None:
        while self._waiting and len(self._active) < self.settings["max_batch_size"]:
            active = self._waiting[0]
            if FATAL_TOKEN in active.prompt:
                self.crash(CppExecutorError("out of memory\nstack trace"))
                return
            if BAD_TOKEN in active.prompt:
                self._waiting.popleft()
                active.result.push(Response([], [], error=RequestError("a bad token")))
                continue
            longest = min(len(active.prompt) + active.params.max_tokens, self.settings["context"])
            if active.kind == "generation_only" and not self._fetch(active):
                self._waiting.popleft()
                continue
            begun = self.cache.begin(active.prompt, longest)
            if begun is None:
                return
            active.held, cached = begun
            if self.settings["cached_tokens"]:
                active.result.cached_tokens = cached  # type: ignore[attr-defined]
            self._waiting.popleft()
            self._active[active.id] = active

    def _fetch(self, active: Active) -> bool:
        """Take the context's blocks over: once, and for the prompt they were computed from."""
        error = ""
        state = active.handed.opaque_state
        if not self.settings["transfer"]:
            error = "Disaggregated serving is not enabled, please check the configuration?"
        elif not isinstance(state, bytes) or not state.startswith(_MAGIC):
            error = "the opaque state cannot be deserialised"
        else:
            path = Path(os.fsdecode(state[len(_MAGIC) :]))
            try:
                kept = json.loads(path.read_text())
                path.unlink()
            except OSError:
                error = f"context request {active.handed.ctx_request_id} not found"
            else:
                if kept != active.prompt:
                    error = "the prompt is not the one of the context phase"
        if error:
            active.result.push(Response([], [], error=RequestError(error)))
            return False
        first = list(active.handed.first_gen_tokens)
        active.tokens += first
        active.produced = len(first)
        active.unsent = list(first)
        active.unsent_logprobs = self._logprobs(active, first[0])
        return True

    def _advance(self, active: Active) -> None:
        assert active.held is not None
        first_step = active.produced == 0 or (active.kind == "generation_only" and active.unsent)
        if first_step:
            self.cache.store(active.held, active.prompt)
        if active.kind == "generation_only" and active.unsent and active.produced == 1:
            # The context's token comes by itself, and is counted.
            active.produced = 1
            if self._send(active, None):
                return
        if active.produced >= active.params.max_tokens:
            self._finish(active, "length")
            return
        token = self._next_token(active)
        logprobs = self._logprobs(active, token)
        active.tokens.append(token)
        active.produced += 1
        active.unsent.append(token)
        active.unsent_logprobs += logprobs
        self._send(active, self._reason(active, token))

    def _reason(self, active: Active, token: int) -> str | None:
        params = active.params
        if active.produced >= (params.min_tokens or 0):
            if token == params.end_id and not params.ignore_eos:
                return "stop"
            if token in (params.stop_token_ids or ()):
                # Trimmed, unlike the end token.
                active.unsent.pop()
                if active.unsent_logprobs:
                    active.unsent_logprobs.pop()
                return "stop"
        full = len(active.tokens) >= self.settings["context"]
        return "length" if full or active.produced >= params.max_tokens else None

    def _send(self, active: Active, reason: str | None) -> bool:
        if reason is not None:
            self._finish(active, reason)
            return True
        if active.streaming:
            active.result.push(Response(active.unsent, active.unsent_logprobs))
            active.unsent, active.unsent_logprobs = [], []
        return False

    def _finish(self, active: Active, reason: str) -> None:
        params = None
        assert active.held is not None
        del self._active[active.id]
        if active.kind == "context_only" and reason != "cancelled":
            params = self._keep(active)
        else:
            self.cache.end(active.held, active.tokens[:-1])
        self._push_events()
        last = Response(active.unsent, active.unsent_logprobs, True, reason, params)
        active.result.push(last)

    def _keep(self, active: Active) -> Any:
        world = Path(os.environ.get("TENSORRT_LLM_STANDIN_WORLD", tempfile.gettempdir()))
        path = world / f"kv-{uuid.uuid4().hex}"
        path.write_text(json.dumps(active.prompt))
        self._kept[active.id] = (active, path)
        return self.settings["context_params"](
            first_gen_tokens=[active.tokens[-1]],
            ctx_request_id=active.id,
            opaque_state=_MAGIC + os.fsencode(path),
        )

    def _look_for_fetches(self) -> None:
        for request_id, (_, path) in list(self._kept.items()):
            if not path.exists():
                self._drop(request_id)

    def _drop(self, request_id: int) -> None:
        active, path = self._kept.pop(request_id)
        path.unlink(missing_ok=True)
        assert active.held is not None
        self.cache.end(active.held, active.prompt)

    def _do_aborts(self) -> None:
        for request_id in self.aborted:
            active = self._active.get(request_id)
            if active is not None:
                self._finish(active, "cancelled")
            elif request_id in self._kept:
                self._drop(request_id)
            else:
                waiting = next((one for one in self._waiting if one.id == request_id), None)
                if waiting is not None:
                    self._waiting.remove(waiting)
                    waiting.result.push(Response([], [], final=True, reason="cancelled"))
        self.aborted.clear()

    def _next_token(self, active: Active) -> int:
        packed = b"".join(token.to_bytes(4, "little") for token in active.tokens)
        value = int(xxhash.xxh3_64_intdigest(packed))
        if active.noise is not None:
            value ^= active.noise.getrandbits(64)
        bias = active.params.embedding_bias
        if bias is not None:
            return int(max(range(len(bias)), key=lambda token: float(bias[token])))
        return EOS if value % 24 == 0 else 1 + value % 200

    def _logprobs(self, active: Active, token: int) -> list[Any]:
        count = active.params.wanted_logprobs
        if not count:
            return []
        if self.settings["plain_logprobs"]:
            return [-0.5]
        others = {200 + n: Logprob(-1.0 - n, 2 + n) for n in range(count - 1)}
        return [{token: Logprob(-0.5, 1)} | others]

    def _stats(self) -> dict[str, Any]:
        cache = self.cache
        return {
            "iter": self.steps,
            "numActiveRequests": len(self._active),
            "numQueuedRequests": len(self._waiting),
            "maxNumActiveRequests": self.settings["max_batch_size"],
            "staticBatchingStats": None,
            "inflightBatchingStats": {"numPausedRequests": 0, "numContextRequests": 0},
            "kvCacheStats": {
                "maxNumBlocks": cache.total,
                "freeNumBlocks": cache.total - cache.used,
                "usedNumBlocks": cache.used,
                "tokensPerBlock": cache.block_tokens,
                "allocTotalBlocks": 10 * cache.total,
                "cacheHitRate": 0.0,
            },
        }
