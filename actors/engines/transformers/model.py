"""Loading a checkpoint, and making sure that this engine can run it truthfully."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch

from actors.engines.base import EngineFailed
from actors.engines.transformers import attention
from actors.engines.transformers.lean import without_the_compiler
from actors.engines.transformers.library import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    AutoModelForCausalLM,
    disable_progress_bar,
    sdpa_mask,
)
from actors.engines.transformers.options import TransformersOptions
from actors.engines.transformers.parallel.split import split
from actors.engines.transformers.parallel.team import LeadingRunner, Team, summed
from actors.engines.transformers.pool import allocate, block_bytes
from actors.engines.transformers.runner import Runner
from actors.engines.transformers.work import Work
from actors.engines.world import local_rank
from actors.kv.transfer import BlockMemory, Geometry, Part
from actors.text.model_files import TokenizerNotFound, read_model_files

_PROBE_TOKENS = 24


class Loaded(NamedTuple):
    """A model, or one rank's share of it, on its pool."""

    runner: Runner
    memory: BlockMemory
    geometry: Geometry
    """Of the whole model."""
    blocks: int
    max_context_tokens: int
    vocabulary: int
    hidden_size: int
    eos_token_ids: tuple[int, ...]
    tokenizer: Path | None
    """The tokenizer.json that grammars are followed with."""
    part: Part
    team: Team | None
    """The other ranks, of an engine over several."""


def load(options: TransformersOptions, team: Team | None = None) -> Loaded:
    """Load the model and allocate its pool, and show that they work together; the same on all
    ranks of the team. Raises EngineFailed with what is wrong."""
    device = _start(options)
    total = None if team is None else team.begin_loading(device)
    model = _checkpoint(options)
    part = Part() if team is None else team.part
    # A GPU may be too small for what is whole on every rank for a moment.
    expected = _logits(model if part.size > 1 else model.to(device))
    if total is not None:
        split(model, part, total)
    model, pool, memory, geometry = _place(model, options, part, device)
    exact = options.deterministic
    if team is None:
        graphs = _records(options, device)
        runner = Runner(model, pool, deterministic=exact, graphs=graphs)
    else:
        runner = LeadingRunner(team, model, pool, deterministic=exact)
        team.await_loading()
    _probe(model, runner, geometry, expected)
    return _loaded(options, model, runner, memory, geometry, part, team)


def load_share(options: TransformersOptions, part: Part, group: Any, rendezvous: str) -> Loaded:
    """What a rank that follows has of the model. Raises EngineFailed."""
    device = _start(options)
    total = summed(group, options, rendezvous, part, device)
    model = _checkpoint(options)
    split(model, part, total)
    model, pool, memory, geometry = _place(model, options, part, device)
    _choose_attention(model, deterministic=options.deterministic)
    runner = Runner(model, pool, deterministic=options.deterministic, answers=False)
    return _loaded(options, model, runner, memory, geometry, part, None)


def _start(options: TransformersOptions) -> torch.device:
    # A service's log is no place for progress bars.
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    device = torch.device(_device(options.device))
    if device.type == "cuda" and options.tensor_parallel_size > 1:
        device = torch.device("cuda", local_rank() % torch.cuda.device_count())
        torch.cuda.set_device(device)
    return device


def _records(options: TransformersOptions, device: torch.device) -> bool:
    """Whether decode steps are recorded as CUDA graphs. Not over several ranks as yet: all of
    them would have to record, and to fall back, in step."""
    return options.cuda_graphs and device.type == "cuda" and options.tensor_parallel_size == 1


def _checkpoint(options: TransformersOptions) -> Any:
    try:
        config = AutoConfig.from_pretrained(options.model)
        _refuse_unsupported(config)
        # Making a model calls what is marked for the compiler.
        with without_the_compiler():
            model = AutoModelForCausalLM.from_pretrained(
                options.model,
                dtype="auto" if options.dtype == "auto" else getattr(torch, options.dtype),
                attn_implementation="sdpa",
            )
    except (OSError, ValueError, ImportError) as error:
        raise EngineFailed(f"model {options.model!r} cannot be loaded: {error}") from error
    return model.eval()


def _place(
    model: Any, options: TransformersOptions, part: Part, device: torch.device
) -> tuple[Any, torch.Tensor, BlockMemory, Geometry]:
    """The model on its device, and its pool beside it."""
    model = model.to(device)
    config = model.config
    geometry = Geometry(
        layers=config.num_hidden_layers,
        kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        head_dim=getattr(config, "head_dim", None)
        or config.hidden_size // config.num_attention_heads,
        dtype=str(model.dtype).removeprefix("torch."),
        block_tokens=options.block_tokens,
    )
    if options.deterministic and (device.type != "cpu" or geometry.dtype != "float32"):
        raise EngineFailed(
            f"deterministic needs float32 on the CPU, not {geometry.dtype} on {device.type}"
        )
    share = msgspec.structs.replace(geometry, kv_heads=geometry.kv_heads // part.size)
    blocks = options.blocks or options.kv_bytes // block_bytes(share)
    if blocks < 1:
        raise EngineFailed(
            f"kv_memory {options.kv_memory} holds no block of {block_bytes(share)} bytes"
        )
    pool, memory = allocate(share, blocks + _records(options, device), device)
    return model, pool, memory, geometry


def _loaded(
    options: TransformersOptions,
    model: Any,
    runner: Runner,
    memory: BlockMemory,
    geometry: Geometry,
    part: Part,
    team: Team | None,
) -> Loaded:
    limits = [
        runner.blocks * options.block_tokens,
        getattr(model.config, "max_position_embeddings", None),
        options.max_context_tokens,
    ]
    return Loaded(
        runner,
        memory,
        geometry,
        runner.blocks,
        min(limit for limit in limits if limit is not None),
        model.config.vocab_size,
        model.config.hidden_size,
        _eos_token_ids(model),
        _tokenizer(options),
        part,
        team,
    )


def _device(choice: str) -> str:
    if choice == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if choice == "cuda" and not torch.cuda.is_available():
        raise EngineFailed("device is cuda, but torch sees no CUDA device")
    return choice


def _refuse_unsupported(config: Any) -> None:
    """Refuse what is known not to be full attention over one KV cache; `_probe` finds the rest."""
    name = config.model_type
    if getattr(config, "is_encoder_decoder", False):
        raise EngineFailed(f"{name} is an encoder-decoder; only decoders are supported")
    if getattr(config, "kv_lora_rank", None):
        raise EngineFailed(f"{name} uses latent attention (MLA), which this engine lacks")
    # Some families carry a window they do not use unless another switch says so.
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        raise EngineFailed(f"{name} uses sliding-window attention, which this engine lacks")
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    if kinds:
        raise EngineFailed(
            f"{name} has layers of kind {', '.join(sorted(kinds))}, not full attention alone"
        )


def _probe_tokens(model: Any) -> list[int]:
    return [(7 * i + 3) % min(model.config.vocab_size, 199) for i in range(_PROBE_TOKENS)]


def _logits(model: Any) -> list[torch.Tensor]:
    """Of the plain model, after each of the probe's tokens."""
    try:
        with torch.inference_mode():
            ids = torch.tensor([_probe_tokens(model)], device=model.device)
            found: torch.Tensor = model(input_ids=ids, use_cache=False).logits[0].float().cpu()
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise EngineFailed(f"{model.config.model_type} cannot be computed: {error}") from error
    return list(found)


def _probe(model: Any, runner: Runner, geometry: Geometry, plain: Sequence[torch.Tensor]) -> None:
    """Compare logits through the pool, in two pieces, with those of the plain model.

    What a configuration does not tell (state-space layers, positions that are not passed on, a
    cache used in another way, a split in the wrong place) shows here, before a request is
    answered wrongly.
    """
    count = min(_PROBE_TOKENS, runner.blocks * geometry.block_tokens)
    tokens = _probe_tokens(model)[:count]
    table = list(range(runner.blocks))[: -(-count // geometry.block_tokens)]
    expected = plain[count - 1]
    try:
        _choose_attention(model, deterministic=runner.deterministic)
        if count > 1:
            runner.run([Work(tokens[: count // 2], 0, table)])
        cut = count // 2
        found = runner.run([Work(tokens[cut:], cut, table)])[0].float().cpu()
    except (TypeError, ValueError, IndexError, RuntimeError, AttributeError) as error:
        raise EngineFailed(
            f"{model.config.model_type} does not work with a paged KV cache: {error}"
        ) from error
    if runner.cache.updated_layers != set(range(geometry.layers)):
        raise EngineFailed(f"{model.config.model_type} does not keep its state in a KV cache only")
    # Rounding moves logits by a few units in the last place; a wrong mask or position moves them
    # by much of their spread.
    spread = float(expected.max() - expected.min())
    if not float((found - expected).abs().max()) <= 0.05 * spread + 1e-6:
        raise EngineFailed(f"{model.config.model_type} computes wrong logits with a paged KV cache")


def _choose_attention(model: Any, *, deterministic: bool) -> None:
    if deterministic:
        _use_attention(model, attention.INVARIANT, attention.invariant_attention)
    elif model.device.type == "cuda":
        _use_attention(model, attention.GROUPED, attention.grouped_attention)


def _use_attention(model: Any, name: str, function: Callable[..., Any]) -> None:
    AttentionInterface.register(name, function)
    # Transformers asks for a mask function even where the mask is given ready-made.
    AttentionMaskInterface.register(name, sdpa_mask)
    model.set_attn_implementation(name)


def _tokenizer(options: TransformersOptions) -> Path | None:
    try:
        return read_model_files(options.tokenizer or options.model).tokenizer
    except TokenizerNotFound:
        return None


def _eos_token_ids(model: Any) -> tuple[int, ...]:
    found = getattr(model.generation_config, "eos_token_id", None)
    if found is None:
        found = model.config.eos_token_id
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(found)
