"""TensorRT-LLM against the contract of engines, on stand-ins of six generations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from actors.engines.base import Engine
from tests.actors.engines.contract import (
    EngineContract,
    Listener,
    Make,
    settled,
)
from tests.actors.engines.tensorrt_llm.fixtures import (
    HANDING_OVER,
    installed,
    make_engine,
    save_model,
)


def _make(model: Path, duty: str, *, max_running: int = 8, max_waiting: int = 64) -> Engine:
    arguments = {"max_batch_size": max_running}
    return make_engine(model, duty=duty, max_waiting=max_waiting, arguments=arguments)


class _OnStandIn(EngineContract):
    """What TensorRT-LLM cannot promise is asked of its greedy streams only."""

    @pytest.mark.parametrize("temperature", [0.0])
    def test_resumed_request_continues_exactly(self, make: Make, temperature: float) -> None:
        super().test_resumed_request_continues_exactly(make, temperature)

    async def cache_told(self, listener: Listener) -> None:
        await settled(lambda: bool(listener.engine.cache_snapshot()))


@pytest.mark.parametrize("generation", HANDING_OVER)
class TestHandingOver(_OnStandIn):
    @pytest.fixture
    def make(self, generation: str, tmp_path: Path) -> Iterator[Make]:
        with installed(generation, os.environ, tmp_path):
            yield partial(_make, save_model(tmp_path), "context")

    @pytest.mark.parametrize("length", [5, 16, 33])
    @pytest.mark.parametrize("temperature", [0.0])
    def test_prefill_and_decode_elsewhere_say_what_one_engine_says(
        self, make: Make, length: int, temperature: float
    ) -> None:
        super().test_prefill_and_decode_elsewhere_say_what_one_engine_says(
            make, length, temperature
        )


class TestOldest(_OnStandIn):
    """0.17 can neither hand over nor tell of its cache."""

    @pytest.fixture
    def make(self, tmp_path: Path) -> Iterator[Make]:
        with installed("0.17", os.environ, tmp_path):
            yield partial(_make, save_model(tmp_path), "aggregated")
