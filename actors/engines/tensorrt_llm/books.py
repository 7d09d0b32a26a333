"""How busy the engine is, by what went in and what came out. Pure.

TensorRT-LLM's statistics come with iterations: of an idle engine there are none, and the last ones
still count the request that has just ended. So the books are kept here, and the statistics only
correct them while there is work.
"""

from __future__ import annotations

import msgspec

from actors.engines.base import Info, Output, Request
from actors.engines.tensorrt_llm.stats import Stats
from actors.kv.hashing import BYTES_PER_TOKEN
from actors.messages.cache import Load


class _Entry(msgspec.Struct):
    prompt_tokens: int
    tokens: int
    begun: bool = False
    held: bool = False


class Books:
    """The live requests of one engine."""

    def __init__(self) -> None:
        self._info: Info | None = None
        self._live: dict[int, _Entry] = {}
        self._held = 0
        self._stats: Stats | None = None

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._live

    def __len__(self) -> int:
        """Requests that are being worked on, or wait for it; held prefills are not."""
        return len(self._live) - self._held

    def started(self, info: Info) -> None:
        self._info = info

    def submitted(self, request: Request) -> None:
        count = len(request.prompt) // BYTES_PER_TOKEN
        self._live[request.id] = _Entry(count, count)

    def produced(self, output: Output) -> None:
        """Take note of an output; the last one of a request closes its entry."""
        entry = self._live.get(output.id)
        if entry is None:
            return
        entry.begun = True
        entry.tokens += len(output.tokens)
        if output.finish is not None:
            self.close(output.id)
        elif output.handoff is not None:
            entry.held = True
            self._held += 1
            self._rest()

    def close(self, request_id: int) -> None:
        entry = self._live.pop(request_id)
        self._held -= entry.held
        self._rest()

    def holds(self, request_id: int) -> bool:
        """Whether it is a finished prefill that waits to be fetched."""
        entry = self._live.get(request_id)
        return entry is not None and entry.held

    def measured(self, stats: Stats) -> None:
        """Take note of statistics of an iteration that was just now."""
        if len(self):
            self._stats = stats

    def load(self) -> Load:
        info = self._info
        if info is None:
            return Load()
        working = [entry for entry in self._live.values() if not entry.held]
        waiting = max(0, len(working) - info.max_running)
        blocks = sum(-(-entry.tokens // info.block_tokens) for entry in self._live.values())
        if self._stats is not None:
            waiting = min(len(working), max(waiting, self._stats.waiting))
            if self._stats.blocks_used is not None:
                blocks = self._stats.blocks_used
        return Load(
            running=len(working) - waiting,
            waiting=waiting,
            waiting_tokens=sum(entry.prompt_tokens for entry in working if not entry.begun),
            blocks_used=blocks,
            blocks_total=info.blocks_total,
            max_running=info.max_running,
        )

    def _rest(self) -> None:
        if not len(self):
            self._stats = None
