"""Attention functions of our own, for Transformers' `AttentionInterface`.

`grouped_attention` is the stock one, but that a decode step reads each key and value once however
many heads share it; older versions of Transformers copy them for every head first.

`invariant_attention` gives a result for a row that does not depend on what else is computed beside
it. Floating-point sums depend on their order, and the stock kernels choose the order by shape. Here
the shape is always the same: keys are taken in chunks of CHUNK, the maximum is global (exact in
any order), and the partial sums are added in the order of the chunks. A chunk that is masked as a
whole adds exact zeros, so it makes no difference how far keys are padded. Query rows are padded to
a multiple of ROWS, since the matrix product of a few rows runs in another kernel than that of
many.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from actors.engines.transformers.library import sdpa_attention_forward

CHUNK = 128
ROWS = 16
GROUPED = "understudy_grouped"
INVARIANT = "understudy_invariant"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Shapes as in `invariant_attention`, with filled equal to batch.

    In a decode step the heads that share keys and values become the rows of one head: they all
    look at the same keys.
    """
    batch, heads, rows, dim = query.shape
    if rows > 1:
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        return found
    kv_heads = key.shape[1]
    packed = query.reshape(batch, kv_heads, heads // kv_heads, dim)
    mixed = scaled_dot_product_attention(
        packed, key, value, attn_mask=attention_mask, scale=scaling
    )
    return mixed.reshape(batch, 1, heads, dim), None


def invariant_attention(
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor,
    *,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[torch.Tensor, None]:
    """query [batch, heads, rows, dim]; key and value [filled, kv_heads, keys, dim] with keys a
    multiple of CHUNK and filled ≤ batch; boolean mask [batch, 1, rows, keys], true where a row
    may look, at least once in each row. Batch rows from `filled` on are padding; they come out as
    zeros. Returns [batch, rows, heads, dim].
    """
    batch, heads, rows, dim = query.shape
    filled, kv_heads, keys, _ = key.shape
    group = heads // kv_heads
    scale = dim**-0.5 if scaling is None else scaling
    padded = -(-rows // ROWS) * ROWS
    query = pad(query[:filled].float(), (0, 0, 0, padded - rows))
    query = query.reshape(filled, kv_heads, group * padded, dim)
    # Padding rows look everywhere; their results are dropped.
    mask = pad(attention_mask[:filled], (0, 0, 0, padded - rows), value=True)
    mask = mask.repeat(1, 1, group, 1)

    scores = []
    for at in range(0, keys, CHUNK):
        chunk = (query @ key[:, :, at : at + CHUNK].float().transpose(2, 3)) * scale
        scores.append(chunk.masked_fill_(~mask[..., at : at + CHUNK], -torch.inf))
    peak = torch.stack([chunk.amax(-1, keepdim=True) for chunk in scores]).amax(0)
    total = torch.zeros_like(peak)
    mixed = torch.zeros_like(query)
    for number, chunk in enumerate(scores):
        weights = chunk.sub_(peak).exp_()
        total += weights.sum(-1, keepdim=True)
        mixed += weights @ value[:, :, number * CHUNK : (number + 1) * CHUNK].float()

    mixed = (mixed / total).reshape(filled, heads, padded, dim)[:, :, :rows]
    out = pad(mixed.transpose(1, 2), (0, 0, 0, 0, 0, 0, 0, batch - filled))
    return out.to(value.dtype).contiguous(), None
