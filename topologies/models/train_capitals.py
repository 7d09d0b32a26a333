"""Train `understudy/capitals`, the demonstration model: a small Llama that knows the capitals.

    python -m topologies.models.train_capitals --out DIR --seed 0

Read it as a lesson: `book.py` has the facts and the ways to ask for them, `documents.py` makes
texts of both, and this goes on with tokenizer, model, training, examination, files. The same seed
and the same number of threads give the same weights, bit for bit, on one version of torch and one
kind of CPU; the SHA-256 of the weights is the last line printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

from topologies.models.book import Book, load_book
from topologies.models.documents import (
    BEGIN,
    CHAT_TEMPLATE,
    END,
    SPECIAL_TOKENS,
    TURN_END,
    Document,
    Writer,
    exam,
)

# ---------------------------------------------------------------------------------------------
# Tokenizer

VOCABULARY = 1024
# The split of Llama 3: contractions, words with the space before them, up to three digits,
# punctuation, line ends, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Byte-level BPE over the texts; all 256 bytes are in it, so any text makes the round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def tokenizer_texts(book: Book) -> list[str]:
    """What the tokenizer learns its merges from: every exam document, without special tokens."""
    texts = ["system", "user", "assistant"] * 1000  # the roles: one token each
    for documents in exam(book).values():
        for document in documents:
            for text, _ in document:
                texts.append(_plain(text))
    return texts


def _plain(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document in tokens; `produced[i]` says whether the model has to produce token i."""

    tokens: list[int]
    produced: list[bool]


def encode(tokenizer: Tokenizer, document: Document) -> Encoded:
    tokens: list[int] = []
    produced: list[bool] = []
    for text, produce in document:
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        tokens += piece
        produced += [produce] * len(piece)
    return Encoded(tokens, produced)


# ---------------------------------------------------------------------------------------------
# Model

CONTEXT_TOKENS = 4096


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json`, in the keys that every release of Transformers since 4.45 reads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
        **_token_ids(tokenizer),
    }


def _token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    ends = [tokenizer.token_to_id(END), tokenizer.token_to_id(TURN_END)]
    return {
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": ends,
        "pad_token_id": ends[0],
    }


def build_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**model_config(tokenizer)))


# ---------------------------------------------------------------------------------------------
# Training

BATCH_TOKENS = 2048
POOL_DOCUMENTS = 512
PEAK_RATE = 3e-3
WARMUP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of like length, padded at their ends. Attention is causal, so no token sees the
    padding after it, and no mask is needed.
    """

    tokens: torch.Tensor  # [documents, longest] int64
    produced: torch.Tensor  # the same shape, bool; padding is never produced

    def predictions(self, model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[n, vocabulary]` before each produced token, and those tokens `[n]`."""
        hidden = model.model(
            input_ids=self.tokens[:, :-1],
            # All ones, only so that nothing is inferred from its absence.
            attention_mask=torch.ones_like(self.tokens[:, :-1]),
            use_cache=False,
        ).last_hidden_state
        wanted = self.produced[:, 1:]
        return model.lm_head(hidden[wanted]), self.tokens[:, 1:][wanted]


def batches(documents: Sequence[Encoded], limit_tokens: int) -> Iterator[Batch]:
    """All documents, shortest first, in batches of at most `limit_tokens` or one document."""
    waiting: list[Encoded] = []
    for document in sorted(documents, key=lambda each: len(each.tokens)):
        if waiting and len(document.tokens) * (len(waiting) + 1) > limit_tokens:
            yield _pad(waiting)
            waiting = []
        waiting.append(document)
    if waiting:
        yield _pad(waiting)


def _pad(documents: Sequence[Encoded]) -> Batch:
    width = max(len(document.tokens) for document in documents)
    tokens = [d.tokens + [0] * (width - len(d.tokens)) for d in documents]
    produced = [d.produced + [False] * (width - len(d.tokens)) for d in documents]
    return Batch(torch.tensor(tokens), torch.tensor(produced))


def endless_batches(book: Book, tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Training batches; within each pool of documents, in random order of length."""
    documents = iter(Writer(book, seed))
    rng = random.Random(seed)
    while True:
        pool = [encode(tokenizer, next(documents)) for _ in range(POOL_DOCUMENTS)]
        drawn = list(batches(pool, BATCH_TOKENS))
        rng.shuffle(drawn)
        yield from drawn


def learning_rate(step: int, steps: int) -> float:
    """A short ramp, then half a cosine down to nothing: the end is what makes it exact."""
    ramp = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_RATE * ramp * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train(
    model: LlamaForCausalLM,
    source: Iterator[Batch],
    steps: int,
    report: Callable[[int, float, int], None] = lambda *_: None,
) -> None:
    """Fit the model to the produced tokens. `report` hears of each step: its number, its mean loss
    in nats a token, and how many tokens (padding too) have been read.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    model.train()
    seen_tokens = 0
    for step, batch in zip(range(steps), source, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = functional.cross_entropy(*batch.predictions(model))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen_tokens += batch.tokens.numel()
        report(step, loss.item(), seen_tokens)
    model.eval()


# ---------------------------------------------------------------------------------------------
# Examination


@dataclass(frozen=True, slots=True)
class Grade:
    """How one kind of question went."""

    documents: int
    right: float
    """Share of documents that greedy decoding gets right to the last token, end token included."""
    sampled: float
    """Mean probability that sampling at temperature 1 gives exactly the expected answers."""


def grade(model: LlamaForCausalLM, documents: Sequence[Encoded]) -> Grade:
    """Examine the model in one pass over each document.

    Greedy decoding yields the expected answer exactly if each of its tokens is the most likely one
    after the prompt and the tokens before it; so no token has to be generated one by one.
    """
    right = sampled = 0.0
    with torch.inference_mode():
        for batch in batches(documents, limit_tokens=8192):
            logits, expected = batch.predictions(model)
            document = batch.produced[:, 1:].nonzero()[:, 0]
            wrong = (logits.argmax(-1) != expected).float()
            nats = functional.cross_entropy(logits, expected, reduction="none")
            count = len(batch.tokens)
            right += (torch.zeros(count).index_add(0, document, wrong) == 0).sum().item()
            sampled += torch.zeros(count).index_add(0, document, -nats).exp().sum().item()
    return Grade(len(documents), right / len(documents), sampled / len(documents))


# ---------------------------------------------------------------------------------------------
# Files


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> str:
    """Write the model in the layout of the Hugging Face hub; return the SHA-256 of its weights.

    The JSON is written here rather than by `save_pretrained`, whose keys follow the release that
    wrote them: releases before 5 would not find the rotary base in what release 5 writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    _write_json(folder / "config.json", model_config(tokenizer))
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "max_new_tokens": 2048, **_token_ids(tokenizer)},
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT_TOKENS,
            "bos_token": BEGIN,
            "eos_token": TURN_END,
            "pad_token": END,
            "clean_up_tokenization_spaces": False,
            # Release 4 would otherwise add token types, which the model refuses.
            "model_input_names": ["input_ids", "attention_mask"],
            # Also here, for readers that predate chat_template.jinja.
            "chat_template": CHAT_TEMPLATE,
        },
    )
    weights = {
        name: tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demonstration model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="decides every random choice")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps (default 4000)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    book = load_book()
    tokenizer = train_tokenizer(tokenizer_texts(book))
    model = build_model(tokenizer, options.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(book.facts)} facts, {parameters:,} parameters")

    begun = time.monotonic()

    def report(step: int, loss: float, seen_tokens: int) -> None:
        if step % 100 == 0 or step == options.steps - 1:
            seconds = time.monotonic() - begun
            rate = seen_tokens / seconds
            print(f"step {step:5d}  loss {loss:.5f}  {rate:6.0f} tokens/s  {seconds:4.0f} s")

    train(model, endless_batches(book, tokenizer, options.seed), options.steps, report)

    for kind, documents in exam(book).items():
        result = grade(model, [encode(tokenizer, document) for document in documents])
        print(
            f"{kind:22s} {result.documents:6d} documents  greedy {result.right:7.2%}"
            f"  temperature 1 {result.sampled:7.2%}"
        )
    print(f"weights sha256 {save(model, tokenizer, options.out)}")


if __name__ == "__main__":
    main()
