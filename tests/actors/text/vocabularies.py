"""Small real tokenizers, trained here, of the kinds served models have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

CORPUS = [
    "the quick brown fox jumps over the lazy dog, twice and then once more",
    "日本語のテキストと絵文字 🙂🙃👩‍👩‍👧 und Äpfel, naïve café",
    "def f(x):\n    return {'a': x}\n\n",
] * 5
END = "<|end|>"
MARK = "\N{LOWER ONE EIGHTH BLOCK}"


def byte_level(added: list[Any] | None = None) -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: merges over bytes. `added`: tokens, instead of two others."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=420,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if added is None:
        added = [AddedToken("<tool call>", special=False), "é日"]
    tokenizer.add_tokens(added)
    return tokenizer


def byte_fallback() -> Tokenizer:
    """As Llama 2 and Mistral: merges over characters, byte tokens for the others."""
    tokens = ["<unk>", END, *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [MARK, *"abcdefghijklmnopqrstuvwxyz,.日本語"]
    merges = [("t", "h"), ("th", "e"), (MARK, "the"), (MARK, MARK)]
    tokens += [left + right for left, right in merges]
    vocabulary = {token: rank for rank, token in enumerate(tokens)}
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(MARK, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", END])
    return tokenizer


def metaspace() -> Tokenizer:
    """As T5: no byte tokens; the text's first token loses its marks."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = BpeTrainer(vocab_size=150, special_tokens=["<unk>", END], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    """As BERT: a decoder whose text is no concatenation of tokens."""
    tokens = ["[UNK]", END, "the", "quick", "##er", "##ly", "fox", ".", "don", "'", "t", "é"]
    vocabulary = {token: rank for rank, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([END])
    return tokenizer


def token_id(tokenizer: Tokenizer, token: str) -> int:
    found = tokenizer.token_to_id(token)
    assert found is not None
    return found


def write_model(directory: Path, tokenizer: Tokenizer, **files: Any) -> Path:
    """A model directory: tokenizer.json, and further JSON files by their stem."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    for stem, content in files.items():
        (directory / f"{stem}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory
