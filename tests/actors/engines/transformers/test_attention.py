from __future__ import annotations

import pytest
import torch
from torch.nn.functional import pad, scaled_dot_product_attention

from actors.engines.transformers.attention import CHUNK, grouped_attention, invariant_attention

HEADS, KV_HEADS, DIM = 4, 2, 16


def inputs(rows: int, keys: int, batch: int = 1) -> tuple[torch.Tensor, ...]:
    """The last `rows` positions of sequences of `keys`, keys padded to whole chunks."""
    generator = torch.Generator().manual_seed(3)
    query = torch.randn(batch, HEADS, keys, DIM, generator=generator)[:, :, keys - rows :]
    padded = -(-keys // CHUNK) * CHUNK
    key, value = (
        pad(torch.randn(batch, KV_HEADS, keys, DIM, generator=generator), (0, 0, 0, padded - keys))
        for _ in range(2)
    )
    positions = torch.arange(keys - rows, keys)
    mask = (torch.arange(padded) <= positions[:, None]).expand(batch, 1, rows, padded)
    return query, key, value, mask


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 200), (16, 16), (130, 300), (5, 129)])
def test_it_is_attention(rows: int, keys: int) -> None:
    query, key, value, mask = inputs(rows, keys, batch=2)

    out, _ = invariant_attention(torch.nn.Module(), query, key, value, mask)

    group = HEADS // KV_HEADS
    expected = scaled_dot_product_attention(
        query, key.repeat_interleave(group, 1), value.repeat_interleave(group, 1), attn_mask=mask
    ).transpose(1, 2)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 200), (16, 16)])
def test_heads_that_share_keys_are_rows_of_one_head(rows: int, keys: int) -> None:
    query, key, value, mask = inputs(rows, keys, batch=2)
    module = torch.nn.Module()
    module.num_key_value_groups = HEADS // KV_HEADS  # type: ignore[assignment]  # as the models do

    out, _ = grouped_attention(module, query, key, value, mask)

    expected, _ = invariant_attention(torch.nn.Module(), query, key, value, mask)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keys", [20, 105, 130, 400])
def test_a_row_is_the_same_to_the_last_bit_in_any_company(keys: int) -> None:
    """Alone or with other rows, with more padding, and in a batch."""
    query, key, value, mask = inputs(16, keys)
    expected = invariant_attention(torch.nn.Module(), query, key, value, mask)[0][:, -1:]

    alone, _ = invariant_attention(torch.nn.Module(), query[:, :, -1:], key, value, mask[:, :, -1:])
    longer = (0, 0, 0, 3 * CHUNK)
    padded, _ = invariant_attention(
        torch.nn.Module(), query, pad(key, longer), pad(value, longer), pad(mask, (0, 3 * CHUNK))
    )
    in_batch, _ = invariant_attention(
        torch.nn.Module(),
        torch.cat([torch.roll(query, 1, 2), query, query]),
        torch.cat([torch.roll(key, 1, 2), key, key]),
        torch.cat([torch.roll(value, 1, 2), value, value]),
        torch.cat([mask, mask, mask]),
    )

    assert torch.equal(alone, expected)
    assert torch.equal(padded[:, -1:], expected)
    assert torch.equal(in_batch[1:2, -1:], expected)


def test_rows_of_padding_come_out_as_zeros() -> None:
    query, key, value, mask = inputs(1, 40, batch=2)

    out, _ = invariant_attention(
        torch.nn.Module(), pad(query, (0, 0, 0, 0, 0, 0, 0, 14)), key, value, mask
    )

    assert out.shape == (16, 1, HEADS, DIM)
    assert not out[2:].any()
    assert out[:2].all()
