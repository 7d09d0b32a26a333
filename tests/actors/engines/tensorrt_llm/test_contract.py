"""TensorRT-LLM against the contract of engines, on stand-ins of six generations."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from actors.engines.base import Engine, Handoff, Phase, Request, RequestRefused
from tests.actors.engines.contract import (
    EngineContract,
    Listener,
    Make,
    prompt_of,
    request_of,
    run,
    running,
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
        # It tells with a delay, and nothing says that it has told all.
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

    def _refuses(self, make: Make, phase: Phase) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                request = request_of(1, prompt_of(40), 9)
                handoff = Handoff(1, b"") if phase == "decode" else None
                handed = Request(1, request.prompt, request.sampling, phase=phase, handoff=handoff)
                with pytest.raises(RequestRefused, match="not made to hand over"):
                    listener.engine.submit(handed)

        run(test())

    def test_prefill_gives_one_token_and_keeps_its_blocks_until_released(self, make: Make) -> None:
        self._refuses(make, "prefill")

    def test_prefill_of_a_single_token_answer_keeps_nothing(self, make: Make) -> None:
        self._refuses(make, "prefill")

    @pytest.mark.parametrize(("length", "temperature"), [(5, 0.0)])
    def test_prefill_and_decode_elsewhere_say_what_one_engine_says(
        self, make: Make, length: int, temperature: float
    ) -> None:
        self._refuses(make, "decode")

    def test_handoff_is_good_for_one_fetch(self, make: Make) -> None:
        self._refuses(make, "decode")

    def test_cancel_of_a_finished_prefill_frees_its_blocks(self, make: Make) -> None:
        self._refuses(make, "prefill")

    def test_repeated_prompt_is_found_in_the_cache(self, make: Make) -> None:
        async def test() -> None:
            async with running(make()) as listener:
                assert not listener.info.publishes_cache_events

        run(test())

    def test_cache_events_lead_from_one_snapshot_to_the_next(self, make: Make) -> None:
        self.test_repeated_prompt_is_found_in_the_cache(make)
