"""What of CUDA graphs can be held without a CUDA device; `bench/gpu.py` runs them on one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.engines.transformers.graphs import SMALLEST_WIDTH, batch_size, table_width


@given(st.integers(1, 5000))
def test_a_graph_is_wide_enough_and_at_most_half_too_wide(blocks: int) -> None:
    width = table_width(blocks)
    assert width >= blocks
    assert width == SMALLEST_WIDTH or width <= 1.5 * blocks


@given(st.integers(1, 5000))
def test_a_batch_is_less_than_doubled(count: int) -> None:
    assert count <= batch_size(count) < 2 * count


def test_a_few_graphs_cover_everything() -> None:
    assert len({table_width(blocks) for blocks in range(1, 1025)}) == 15
    assert len({batch_size(count) for count in range(1, 65)}) == 7
