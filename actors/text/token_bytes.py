"""What each token adds to the text, as bytes, for the two ways today's models spell text.

    byte-level      (GPT-2, Llama 3, Qwen)  every character of a token stands for one byte
    SentencePiece   (Llama 2, Mistral, Gemma, T5)  `▁` stands for a space, `<0xE4>` for a byte

For both the text of a sequence is the bytes of its tokens, joined and read as UTF-8, with some
spaces dropped at the very beginning. So a stream needs no more state than an unfinished character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tokenizers

_BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


@dataclass(frozen=True)
class Spelling:
    """How a tokenizer's decoder turns token strings into text."""

    to_bytes: Callable[[str], bytes]
    first_to_bytes: Callable[[str], bytes] | None = None
    """For the first token of a text, where it is spelled differently."""
    strip: str = " "
    strip_limit: int = 0
    """How many leading `strip` characters the text as a whole loses."""


class TokenBytes(dict[int, bytes]):
    """Token id to bytes, filled as tokens are seen; never larger than the vocabulary.

    A token that adds nothing (special, when these are skipped; not in the vocabulary) is `b""`.
    Shared by all streams; threads may race to fill an entry, with the same value.
    """

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, spelling: Spelling, hidden: frozenset[int]
    ) -> None:
        super().__init__()
        self.spelling = spelling
        self.whole = WholeTokens(self)
        self._tokenizer = tokenizer
        self._hidden = hidden

    def __missing__(self, token: int) -> bytes:
        spelled = self._spelled(token)
        if spelled is None:  # not stored: ids from outside must not make the table grow
            return b""
        self[token] = found = self.spelling.to_bytes(spelled)
        return found

    def first(self, token: int) -> bytes | None:
        """The bytes of a token that opens the text; None when it is no part of the text at all."""
        spelled = self._spelled(token)
        if spelled is None:
            return None
        return (self.spelling.first_to_bytes or self.spelling.to_bytes)(spelled)

    def _spelled(self, token: int) -> str | None:
        if token in self._hidden:
            return None
        spelled: str | None = self._tokenizer.id_to_token(token)
        return spelled


class WholeTokens(dict[int, bytes]):
    """Token id to its text as it stands in a JSON string, for tokens that are whole characters;
    `b""` for all others. Filled and shared like `TokenBytes`."""

    def __init__(self, table: TokenBytes) -> None:
        super().__init__()
        self._table = table

    def __missing__(self, token: int) -> bytes:
        spelled = self._table[token]
        try:
            found = json.dumps(spelled.decode(), ensure_ascii=False)[1:-1].encode()
        except UnicodeDecodeError:
            found = b""
        if token in self._table:  # ids from outside the vocabulary must not make this one grow
            self[token] = found
        return found


def spelling_of(tokenizer: tokenizers.Tokenizer) -> Spelling | None:
    """The spelling behind a tokenizer's decoder; None when it is neither of the two known."""
    if tokenizer.decoder is None:
        return None
    # A decoder's state is its section of tokenizer.json, the only description it gives of itself.
    steps = _steps(json.loads(tokenizer.decoder.__getstate__()))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return _byte_level()
    if kinds == ["Metaspace"]:
        return _metaspace(steps[0])
    return _sentencepiece(steps)


def _steps(decoder: dict[str, Any]) -> list[dict[str, Any]]:
    if decoder["type"] != "Sequence":
        return [decoder]
    return [step for inner in decoder["decoders"] for step in _steps(inner)]


def _byte_level() -> Spelling:
    byte_of = _byte_of_character()

    def to_bytes(token: str) -> bytes:
        try:
            return bytes([byte_of[character] for character in token])
        except KeyError:  # an added token, written as it is
            return token.encode()

    return Spelling(to_bytes)


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: a visible Latin-1 character is its own byte; the other 68 bytes follow,
    in order, from U+0100 on (`bytes_to_unicode` in OpenAI's gpt-2 repository)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in set(visible)]
    own = {chr(byte): byte for byte in visible}
    return own | {chr(0x100 + rank): byte for rank, byte in enumerate(others)}


def _metaspace(step: dict[str, Any]) -> Spelling:
    mark = step["replacement"]

    def to_bytes(token: str) -> bytes:
        return token.replace(mark, " ").encode()

    def first_to_bytes(token: str) -> bytes:
        return token.replace(mark, "").encode()

    return Spelling(to_bytes, None if step["prepend_scheme"] == "never" else first_to_bytes)


def _sentencepiece(steps: list[dict[str, Any]]) -> Spelling | None:
    """Replace*, ByteFallback?, Fuse, Strip?: in this order, as converted models have it."""
    steps = list(steps)
    replacements: list[tuple[str, str]] = []
    while steps and steps[0]["type"] == "Replace" and "String" in steps[0]["pattern"]:
        step = steps.pop(0)
        replacements.append((step["pattern"]["String"], step["content"]))
    byte_fallback = bool(steps) and steps[0]["type"] == "ByteFallback"
    steps = steps[1:] if byte_fallback else steps
    if not steps or steps.pop(0)["type"] != "Fuse":
        return None
    strip = steps.pop(0) if steps and steps[0]["type"] == "Strip" else None
    if steps or (strip is not None and strip["stop"] != 0):
        return None

    def to_bytes(token: str) -> bytes:
        for old, new in replacements:
            token = token.replace(old, new)
        if byte_fallback and (found := _BYTE_TOKEN.fullmatch(token)):
            return bytes([int(found[1], 16)])
        return token.encode()

    if strip is None:
        return Spelling(to_bytes)
    return Spelling(to_bytes, strip=strip["content"], strip_limit=strip["start"])
