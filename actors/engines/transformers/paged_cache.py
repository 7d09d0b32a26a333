"""The cache object that an unmodified Transformers model reads and writes its KV through."""

from __future__ import annotations

from typing import Any

import torch

from actors.engines.transformers.library import Cache


class Slots:
    """Where one batch's tokens go in the pool, and where its sequences lie.

    `written` names the rows of the flattened batch [batch * rows] that hold real tokens, None for
    all; `block` and `offset` say where each of them goes. `table` [filled, width] lists each
    sequence's blocks in order, padded with any block.
    """

    def __init__(
        self,
        written: torch.Tensor | None,
        block: torch.Tensor,
        offset: torch.Tensor,
        table: torch.Tensor,
    ) -> None:
        self.written = written
        self.block = block
        self.offset = offset
        self.table = table


class PagedCache(Cache):  # type: ignore[misc]  # transformers has no types
    """A view on the pool for the batch described by `slots`, which the runner sets before each
    forward pass. Only `update` is used in earnest: positions and masks are passed explicitly."""

    def __init__(self, pool: torch.Tensor) -> None:
        super().__init__(layers=[])
        self._pool = pool
        self.slots: Slots | None = None
        self.updated_layers: set[int] = set()
        """Layers that wrote since this was last cleared; tells whether a model uses this cache."""

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *_args: Any,
        **_kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Store new KV, [batch, kv_heads, rows, dim], and return that of whole sequences,
        [filled, kv_heads, width * block_tokens, dim]."""
        slots = self.slots
        assert slots is not None
        self.updated_layers.add(layer_idx)
        filled, width = slots.table.shape
        flat = slots.table.flatten()
        gathered = []
        for part, states in enumerate((key_states, value_states)):
            plane = self._pool[:, layer_idx, part]
            rows = states.transpose(1, 2).flatten(0, 1)
            if slots.written is not None:
                rows = rows[slots.written]
            plane[slots.block, slots.offset] = rows
            found = plane.index_select(0, flat)
            found = found.view(filled, width * found.shape[1], *found.shape[2:])
            gathered.append(found.transpose(1, 2))
        return gathered[0], gathered[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """0: nothing may be derived from it, every position is given."""
        del layer_idx
        return 0

    def get_mask_sizes(self, *_args: Any, **_kwargs: Any) -> tuple[int, int]:
        """Keys, and the first key's position. Versions differ in the arguments."""
        assert self.slots is not None
        return self.slots.table.shape[1] * self._pool.shape[3], 0
