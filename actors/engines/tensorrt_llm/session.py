"""A loaded `LLM`, with the differences between versions taken out.

Everything here but `load` and `shutdown` is called from one thread with a running event loop, and
stays there: TensorRT-LLM binds its queues to the loop of the first request.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import AsyncIterator, Callable, MutableMapping
from pathlib import Path
from typing import Any

import structlog

from actors.engines.base import EngineFailed, Handoff, Info, Request
from actors.engines.tensorrt_llm import launched, ticket
from actors.engines.tensorrt_llm.api import Api, find_api
from actors.engines.tensorrt_llm.files import (
    BadArguments,
    ModelFacts,
    read_arguments,
    read_model_facts,
)
from actors.engines.tensorrt_llm.options import TensorRtLlmOptions
from actors.engines.tensorrt_llm.ranks import Ranks
from actors.engines.tensorrt_llm.sampling import sampling_arguments
from actors.engines.tensorrt_llm.stats import Stats, each
from actors.engines.tensorrt_llm.stream import Snapshot
from actors.engines.tensorrt_llm.translate import Fitted, Wishes, fit

PROBE_TOKEN = 1
"""The prompt of the first request, which only wakes the executor."""
_DEFAULT_BLOCK_TOKENS = 32
_DEFAULT_MAX_RUNNING = 2048
_RPC_QUIET_S = 0.01
"""How long a statistic may be waited for where the call blocks its thread meanwhile."""

log = structlog.get_logger("engine")


class Session:
    """One `LLM`. Raises EngineFailed when it cannot be had."""

    def __init__(
        self,
        options: TensorRtLlmOptions,
        base_dir: Path,
        duty: str,
        ranks: Ranks | None,
        environ: MutableMapping[str, str],
    ) -> None:
        self._options = options
        try:
            self.arguments = read_arguments(options, base_dir)
            self.api: Api = find_api(self.arguments.keywords.get("backend"))
            self.fitted: Fitted = fit(
                self.arguments.keywords,
                self.api,
                Wishes(
                    duty=duty,
                    transfer=options.kv_transfer,
                    cache_events=options.cache_events,
                ),
            )
            size = self.arguments.ranks
        except BadArguments as error:
            raise EngineFailed(str(error)) from error
        if duty != "aggregated" and not self.api.hands_over:
            raise EngineFailed(
                f"TensorRT-LLM {self.api.version} cannot hand over between workers; "
                "use an aggregated worker, or a version from 0.18 on"
            )
        for note in self.fitted.notes:
            log.warning("argument_left_out", note=note)
        if ranks is None:
            launched.check(size, self.fitted.environ, environ)
        # Read by TensorRT-LLM and by the ranks it starts, when the engine is made.
        environ.update(self.fitted.environ)
        self._llm = self._make(ranks)
        self.facts: ModelFacts = read_model_facts(self.arguments.model)

    def _make(self, ranks: Ranks | None) -> Any:
        keywords = dict(self.fitted.keywords)
        session = None if ranks is None else ranks.session(self.fitted.environ)
        if session is not None:
            keywords["_mpi_session"] = session
        try:
            return self.api.llm(model=self.arguments.model, **keywords)
        except Exception as error:
            # Whatever its many layers raise: there is no engine.
            raise EngineFailed(
                f"TensorRT-LLM {self.api.version} cannot load {self.arguments.model}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def info(self, stats: Stats) -> Info:
        """What the engine is, after the first statistics. Raises EngineFailed."""
        options, facts = self._options, self.facts
        vocabulary = options.vocabulary or facts.vocabulary
        limits = (
            options.max_context_tokens,
            self.fitted.keywords.get("max_seq_len"),
            self._argument("max_seq_len"),
            facts.max_context_tokens,
        )
        known = [limit for limit in limits if limit]
        if vocabulary is None or not known:
            missing = "vocabulary" if vocabulary is None else "max_context_tokens"
            raise EngineFailed(
                f"the files of {self.arguments.model} do not tell its {missing}: "
                f"say it in the engine's options"
            )
        block = (
            options.block_tokens
            or stats.block_tokens
            or self.fitted.block_tokens
            or _DEFAULT_BLOCK_TOKENS
        )
        running = self.fitted.keywords.get("max_batch_size") or self._argument("max_batch_size")
        return Info(
            kind="tensorrt_llm",
            model=self.arguments.name,
            max_context_tokens=min(known),
            block_tokens=block,
            blocks_total=stats.blocks_total or 0,
            max_running=running or stats.max_running or _DEFAULT_MAX_RUNNING,
            vocabulary=vocabulary,
            eos_token_ids=self.eos_token_ids,
            publishes_cache_events=self.fitted.events,
        )

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        if self._options.eos_token_ids is not None:
            return self._options.eos_token_ids
        return self.facts.eos_token_ids

    def submit(self, request: Request, tokens: list[int], vocabulary: int) -> Any:
        """Begin a request; returns TensorRT-LLM's result. Raises RequestRefused, `BadTicket`, and
        whatever TensorRT-LLM does."""
        arguments = sampling_arguments(request, self.api, self.eos_token_ids, vocabulary)
        if "embedding_bias" in arguments:
            import torch  # noqa: PLC0415 - TensorRT-LLM has loaded it; nobody else needs it

            arguments["embedding_bias"] = torch.tensor(arguments["embedding_bias"])
        keywords: dict[str, Any] = {}
        if request.handoff is not None:
            keywords["disaggregated_params"] = ticket.decode(
                request.handoff.ticket, self.api.disaggregated
            )
        elif keeps(request):
            keywords["disaggregated_params"] = self.api.disaggregated(request_type=ticket.CONTEXT)
        return self._llm.generate_async(
            inputs=tokens,
            # A new one each time: it is completed in place.
            sampling_params=self.api.sampling(**arguments),
            streaming=request.phase != "prefill",
            **keywords,
        )

    def probe(self) -> Any:
        """The first request: it binds the queues to this loop, and wakes the statistics."""
        ends = self.eos_token_ids
        end = ends[0] if ends else -1
        params = self.api.sampling(max_tokens=1, end_id=end, pad_id=end, detokenize=False)
        return self._llm.generate_async(
            inputs=[PROBE_TOKEN], sampling_params=params, streaming=False
        )

    def snapshot(self, result: Any, request: Request) -> Snapshot:
        """Copy what a result says now; the next step changes it."""
        output = result.outputs[0]
        found = Snapshot(
            tokens=list(output.token_ids or ()),
            reason=output.finish_reason,
            finished=bool(getattr(result, "finished", output.finish_reason is not None)),
            logprobs=list(output.logprobs or ()) if request.sampling.logprobs is not None else [],
            cached_tokens=int(getattr(result, "cached_tokens", 0) or 0),
        )
        params = getattr(output, "disaggregated_params", None)
        if keeps(request) and params is not None and found.finished:
            token = ticket.first_token(params)
            if token is not None:
                found.tokens = [token]
                found.handoff = Handoff(token, ticket.encode(params, self.api.version))
        return found

    async def stats(self) -> AsyncIterator[dict[str, Any]]:
        """Statistics until none has come for a while."""
        async for one in self._drain("get_stats_async", "_get_stats_async"):
            yield one

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Cache events until none has come for a while."""
        async for one in self._drain("get_kv_cache_events_async"):
            yield one

    async def _drain(self, *names: str) -> AsyncIterator[dict[str, Any]]:
        call: Callable[..., Any] | None = next(
            (found for name in names if (found := getattr(self._llm, name, None))), None
        )
        if call is None:
            return
        blocks = str(self._argument("orchestrator_type") or "") == "rpc"
        items = call(timeout=_RPC_QUIET_S if blocks else self._options.quiet_s)
        if hasattr(items, "__aiter__"):
            async for item in items:
                for one in each(item):
                    yield one
            return
        found = await items if inspect.isawaitable(items) else items
        for one in each(found):
            yield one

    def shutdown(self) -> None:
        """Blocks; TensorRT-LLM stops its executor and its ranks."""
        self._llm.shutdown()

    def _argument(self, name: str) -> Any:
        """Of the arguments as TensorRT-LLM has completed them."""
        return getattr(getattr(self._llm, "args", None), name, None)


def keeps(request: Request) -> bool:
    """Whether a request leaves its KV blocks for a successor. One token alone is a whole answer."""
    return request.phase == "prefill" and request.sampling.max_tokens > 1


def process_environ() -> MutableMapping[str, str]:
    """Where TensorRT-LLM looks for its switches."""
    return os.environ
