"""Shares of a model computed by threads, in the place of ranks: their sum is the whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from actors.engines.base import EngineFailed
from actors.engines.transformers.parallel.split import split
from actors.kv.transfer import Part
from tests.actors.engines.transformers.models import FAMILIES, save_model

Checkpoint = Callable[[str], str]
PATIENCE_S = 20.0
SHARED = [HealthCheck.function_scoped_fixture]


class Together:
    """Sums over threads, each a rank."""

    def __init__(self, size: int) -> None:
        self._parts: list[torch.Tensor] = [torch.empty(0)] * size
        self._barrier = threading.Barrier(size)

    def total(self, rank: int) -> Callable[[torch.Tensor], torch.Tensor]:
        def add(tensor: torch.Tensor) -> torch.Tensor:
            self._parts[rank] = tensor
            self._barrier.wait(PATIENCE_S)
            summed = torch.stack(self._parts).sum(0)
            self._barrier.wait(PATIENCE_S)
            return summed

        return add


def load(path: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(path).eval()


def computed(models: Sequence[Any], tokens: list[int]) -> list[torch.Tensor]:
    def one(model: Any) -> torch.Tensor:
        with torch.inference_mode():
            logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits
            return logits

    with ThreadPoolExecutor(len(models)) as pool:
        return list(pool.map(one, models))


def shares(path: str, size: int) -> list[Any]:
    together = Together(size)
    models = [load(path) for _ in range(size)]
    for rank, model in enumerate(models):
        split(model, Part(rank, size), together.total(rank))
    return models


@pytest.mark.parametrize("family", FAMILIES)
@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tokens=st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_two_shares_make_the_whole(checkpoint: Checkpoint, family: str, tokens: list[int]) -> None:
    whole = load(checkpoint(family))
    (expected,) = computed([whole], tokens)

    for found in computed(shares(checkpoint(family), 2), tokens):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


def test_a_share_is_its_part_of_the_layers(checkpoint: Checkpoint) -> None:
    whole = load(checkpoint("qwen2"))
    layers = ("q_proj", "k_proj", "v_proj", "o_proj")
    for rank, model in enumerate(shares(checkpoint("qwen2"), 2)):
        mine = model.base_model.layers[0].self_attn
        of = whole.base_model.layers[0].self_attn
        sizes = [getattr(mine, layer).weight.numel() for layer in layers]

        assert sizes == [getattr(of, layer).weight.numel() // 2 for layer in layers]
        half = of.q_proj.weight.shape[0] // 2
        assert torch.equal(mine.q_proj.weight, of.q_proj.weight[rank * half : (rank + 1) * half])
        assert torch.equal(mine.q_proj.bias, of.q_proj.bias[rank * half : (rank + 1) * half])


def test_a_size_that_divides_no_heads_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(EngineFailed, match="is 4, which does not divide the model's 2 KV heads"):
        split(load(checkpoint("llama")), Part(0, 4), lambda tensor: tensor)


def test_a_model_without_a_plan_is_refused(checkpoint: Checkpoint) -> None:
    model = load(checkpoint("llama"))
    model.config.base_model_tp_plan = None

    with pytest.raises(EngineFailed, match="no plan to split llama"):
        split(model, Part(0, 2), lambda tensor: tensor)


def test_embeddings_stay_whole_where_a_plan_would_split_them(checkpoint: Checkpoint) -> None:
    # As some releases of Transformers have it.
    model = load(checkpoint("llama"))
    whole = model.base_model.embed_tokens.weight.shape
    plan = model.config.base_model_tp_plan
    model.config.base_model_tp_plan = {"embed_tokens": "embedding_rowwise", **plan}

    split(model, Part(0, 2), lambda tensor: tensor)

    assert model.base_model.embed_tokens.weight.shape == whole


def test_a_plan_that_this_engine_does_not_know_is_refused(checkpoint: Checkpoint) -> None:
    model = load(checkpoint("llama"))
    model.config.base_model_tp_plan = {"layers.*.mlp.up_proj": "packed_colwise"}

    with pytest.raises(EngineFailed, match=r"layers\.0\.mlp\.up_proj .* as packed_colwise"):
        split(model, Part(0, 2), lambda tensor: tensor)


def test_four_shares_make_the_whole(tmp_path: Any) -> None:
    path = str(save_model("llama", tmp_path, num_key_value_heads=4))
    tokens = list(range(3, 40))
    (expected,) = computed([load(path)], tokens)

    for found in computed(shares(path, 4), tokens):
        assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
