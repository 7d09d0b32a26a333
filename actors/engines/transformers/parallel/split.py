"""A model cut down to one rank's share, after Shoeybi et al., "Megatron-LM" (2019).

In each attention and each MLP, the first linear layers are cut by their outputs (*columns* of the
transposed weight: whole heads, and whole units of the MLP) and the last one by its inputs (*rows*);
between them nothing has to be exchanged, and behind the last one partial results are summed over
the ranks. So there are two sums a layer. Embeddings, norms and the head of the vocabulary are whole
on every rank; followers do not compute the head.

Which layer is which, Transformers knows (`base_model_tp_plan` of a configuration).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from actors.engines.base import EngineFailed
from actors.kv.transfer import Part

Sum = Callable[[torch.Tensor], torch.Tensor]
"""The sum of a tensor over all ranks; may reuse its argument."""


_WHOLE = ("replicated", "embedding")
"""Kinds of layers that every rank keeps whole: splitting them gains nothing here."""


class RowLinear(nn.Module):
    """A linear layer over a share of its inputs, summed with the others' shares."""

    def __init__(self, whole: nn.Linear, part: Part, total: Sum) -> None:
        super().__init__()
        self.weight = nn.Parameter(_share(whole.weight, 1, part), requires_grad=False)
        self.bias = whole.bias
        self._total = total

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        summed = self._total(nn.functional.linear(inputs, self.weight))
        return summed if self.bias is None else summed + self.bias


def split(model: Any, part: Part, total: Sum) -> None:
    """Cut a loaded model down, in place. Raises EngineFailed when it cannot be done."""
    config = model.config
    plan: dict[str, str] = getattr(config, "base_model_tp_plan", None) or {}
    if not plan:
        raise EngineFailed(f"Transformers has no plan to split {config.model_type} over ranks")
    _check_divisible(config, part.size)
    base = model.base_model
    cut = 0
    for pattern, kind in plan.items():
        if kind.startswith(_WHOLE):
            continue
        name_is = re.compile(re.escape(pattern).replace(r"\*", r"\d+") + "$")
        for name in [name for name, _ in base.named_modules() if name_is.match(name)]:
            _cut(base, name, kind, part, total)
            cut += 1
    if not cut:
        raise EngineFailed(
            f"Transformers' plan to split {config.model_type} fits none of its layers"
        )


def _cut(base: Any, name: str, kind: str, part: Part, total: Sum) -> None:
    layer = base.get_submodule(name)
    if not isinstance(layer, nn.Linear) or kind not in {"colwise", "rowwise"}:
        raise EngineFailed(f"layer {name} ({type(layer).__name__}) cannot be split as {kind}")
    if kind == "rowwise":
        parent, _, last = name.rpartition(".")
        setattr(base.get_submodule(parent), last, RowLinear(layer, part, total))
        return
    layer.weight = nn.Parameter(_share(layer.weight, 0, part), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(_share(layer.bias, 0, part), requires_grad=False)
    layer.out_features = layer.weight.shape[0]


def _check_divisible(config: Any, size: int) -> None:
    heads = config.num_attention_heads
    sizes = {
        "attention heads": heads,
        "KV heads": getattr(config, "num_key_value_heads", None) or heads,
        "units of an MLP": config.intermediate_size,
    }
    for what, count in sizes.items():
        if count % size:
            raise EngineFailed(
                f"tensor_parallel_size is {size}, which does not divide the model's {count} {what}"
            )


def _share(tensor: torch.Tensor, dimension: int, part: Part) -> torch.Tensor:
    # A copy, so that the whole can be freed.
    return tensor.detach().chunk(part.size, dimension)[part.rank].clone()
