"""Every engine of the house against the one contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from actors.engines.base import Engine
from actors.engines.simulated import SimulatedEngine, SimulatedOptions
from actors.engines.transformers import TransformersEngine, TransformersOptions
from tests.actors.engines.contract import EngineContract, Make

_BLOCKS = 64
_CONTEXT_TOKENS = 512


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two thin layers with random weights."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=256,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=_CONTEXT_TOKENS,
        eos_token_id=255,
        pad_token_id=None,
    )
    folder = tmp_path_factory.mktemp("llama")
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


class TestSimulated(EngineContract):
    @pytest.fixture
    def make(self) -> Make:
        def make(*, max_running: int = 8, max_waiting: int = 64) -> Engine:
            return SimulatedEngine(
                SimulatedOptions(
                    speedup=0,
                    blocks=_BLOCKS,
                    max_context_tokens=_CONTEXT_TOKENS,
                    max_step_tokens=100,
                    max_running=max_running,
                    max_waiting=max_waiting,
                )
            )

        return make


class TestTransformers(EngineContract):
    @pytest.fixture
    def make(self, tiny_llama: Path) -> Make:
        return partial(_transformers, tiny_llama)


def _transformers(model: Path, *, max_running: int = 8, max_waiting: int = 64) -> Engine:
    return TransformersEngine(
        TransformersOptions(
            model=str(model),
            device="cpu",
            deterministic=True,
            blocks=_BLOCKS,
            max_step_tokens=128,
            max_running=max_running,
            max_waiting=max_waiting,
        )
    )
