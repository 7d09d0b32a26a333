from __future__ import annotations

import pytest

from actors.engines.base import EngineFailed
from actors.engines.tensorrt_llm.launched import check

INSIDE = {"TLLM_SPAWN_PROXY_PROCESS": "1", "tllm_mpi_size": "2"}
SWITCH = {"TRTLLM_USE_UCX_KVCACHE": "1"}


def test_ranks_that_fit_are_used() -> None:
    check(2, {}, INSIDE)
    check(2, SWITCH, {**INSIDE, **SWITCH})


def test_without_the_script_or_several_ranks_there_is_nothing_to_check() -> None:
    check(2, SWITCH, {})
    check(1, SWITCH, INSIDE)


def test_another_number_of_ranks_is_refused() -> None:
    with pytest.raises(EngineFailed, match="started 2 ranks, and the engine is split over 4"):
        check(4, {}, INSIDE)


def test_a_switch_that_the_ranks_have_not_is_told_with_what_to_write() -> None:
    with pytest.raises(EngineFailed, match=r'env: \{TRTLLM_USE_UCX_KVCACHE: "1"\}'):
        check(2, SWITCH, INSIDE)
