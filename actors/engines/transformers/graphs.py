"""Decode steps as CUDA graphs.

A decode step of a small model is hundreds of kernels that take microseconds each, and launching
them from Python takes longer than running them. A graph records the launches of one step and
replays them with one call. It is bound to its shapes and its addresses, so there is one for each
size of batch and width of table (rounded up, to have few), recorded when first needed, and each
reads its inputs from a buffer of its own.

Rows that only fill a batch up write to a spare block at the end of the pool, which no sequence
owns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import structlog
import torch

from actors.engines.transformers.paged_cache import PagedCache, Slots
from actors.engines.transformers.work import Work

SMALLEST_WIDTH = 8
"""Blocks of the narrowest table worth a graph of its own."""
_WARM_UPS = 2
"""Passes before recording, in which libraries choose kernels and allocate what they need."""

_log = structlog.get_logger(__name__)


class _Graph(NamedTuple):
    graph: torch.cuda.CUDAGraph
    inputs: torch.Tensor
    """[batch, 4 + width] int64: token, position, block and offset written, table."""
    logits: torch.Tensor


class DecodeGraphs:
    """Runs steps in which every sequence has one token to compute. Used from one thread."""

    def __init__(self, model: Any, cache: PagedCache, pool: torch.Tensor) -> None:
        """The last block of the pool is the spare one."""
        self._model = model
        self._cache = cache
        self._device = pool.device
        self._block_tokens = pool.shape[3]
        self._spare = pool.shape[0] - 1
        self._memory = torch.cuda.graph_pool_handle()
        self._graphs: dict[tuple[int, int], _Graph] = {}

    def run(self, works: Sequence[Work]) -> torch.Tensor | None:
        """Logits [works, vocabulary], valid until the next run; None when the model does what
        cannot be recorded, and then always."""
        width = max(work.start // self._block_tokens + 1 for work in works)
        shape = batch_size(len(works)), table_width(width)
        found = self._graphs.get(shape)
        if found is None:
            found = self._try_to_record(shape)
            if found is None:
                return None
        found.inputs.copy_(torch.from_numpy(self._inputs(works, shape)))
        found.graph.replay()
        return found.logits[: len(works)]

    def _inputs(self, works: Sequence[Work], shape: tuple[int, int]) -> np.ndarray[Any, Any]:
        batch, width = shape
        inputs = np.zeros((batch, 4 + width), np.int64)
        inputs[:, 2] = self._spare
        inputs[:, 4:] = self._spare
        for row, work in enumerate(works):
            block, offset = divmod(work.start, self._block_tokens)
            used = work.blocks[:width]
            inputs[row, :4] = work.tokens[0], work.start, work.blocks[block], offset
            inputs[row, 4 : 4 + len(used)] = used
        return inputs

    def _try_to_record(self, shape: tuple[int, int]) -> _Graph | None:
        try:
            recorded = self._graphs[shape] = self._record(shape)
        except RuntimeError as error:  # what PyTorch raises for anything that cannot be recorded
            _log.warning("cuda_graphs_not_used", reason=str(error).split("\n")[0])
            return None
        return recorded

    def _record(self, shape: tuple[int, int]) -> _Graph:
        inputs = torch.from_numpy(self._inputs([], shape)).to(self._device)
        for _ in range(_WARM_UPS):
            self._forward(inputs)
        graph = torch.cuda.CUDAGraph()
        # Threads that fetch KV blocks go on copying meanwhile; what they do is none of the graph's.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            logits = self._forward(inputs)
        return _Graph(graph, inputs, logits)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        positions = inputs[:, 1:2]
        table = inputs[:, 4:]
        self._cache.slots = Slots(None, inputs[:, 2], inputs[:, 3], table)
        keys = torch.arange(table.shape[1] * self._block_tokens, device=self._device)
        output = self._model(
            input_ids=inputs[:, :1],
            position_ids=positions,
            attention_mask=(keys <= positions[:, None, :, None]),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: torch.Tensor = output.logits[:, -1]
        return logits


def batch_size(count: int) -> int:
    """The graph's batch for so many sequences: the next power of two."""
    return 1 << (count - 1).bit_length()


def table_width(blocks: int) -> int:
    """The graph's width for tables of so many blocks: the next of 8, 12, 16, 24, 32, 48, ..."""
    width = SMALLEST_WIDTH
    while width < blocks:
        width += width // 2 if width & (width - 1) == 0 else width // 3
    return width
