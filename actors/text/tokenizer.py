"""A model's tokenizer, and what belongs to it: end tokens, special tokens, chat templates."""

from __future__ import annotations

import functools
import os
import sys
from array import array
from collections.abc import Iterable
from typing import Final

import tokenizers

from actors.text.chat_template import ChatTemplates, NoChatTemplate
from actors.text.cuts import safe_marks
from actors.text.detokenizer import ByteDetokenizer, Detokenizer, WindowDetokenizer
from actors.text.model_files import ModelFiles, TokenizerNotFound, read_model_files
from actors.text.token_bytes import TokenBytes, spelling_of
from actors.text.words import Words

TYPE_CODE: Final = "I"
"""Token ids travel packed: little-endian, 4 bytes each; this is what `array` calls it."""
assert array(TYPE_CODE).itemsize == 4, "token ids are 32-bit numbers"
assert sys.byteorder == "little", "packed token ids are used as they lie in memory"


def packed(ids: Iterable[int]) -> bytes:
    """The packed form of token ids."""
    return array(TYPE_CODE, ids).tobytes()


def unpacked(packed: bytes) -> list[int]:
    """Token ids from their packed form."""
    return memoryview(packed).cast(TYPE_CODE).tolist()


_NOTHING_HIDDEN: frozenset[int] = frozenset()


class Tokenizer:
    """Text to packed token ids and back. All methods may be called from several threads."""

    def __init__(self, tokenizer: tokenizers.Tokenizer, files: ModelFiles) -> None:
        # A prompt must be neither cut nor padded, whatever training left in tokenizer.json.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._chat_template_sources = files.chat_templates
        self.special_tokens = files.special_tokens()
        """Name to token: `bos_token`, `eos_token` and others the model declares."""
        self.eos_token_ids = _eos_token_ids(tokenizer, files)
        """Tokens that end an answer: those of generation_config.json (else config.json), then the
        tokenizer's own `eos_token`. Empty when nothing names one."""
        self.vocabulary_size: int = tokenizer.get_vocab_size(with_added_tokens=True)
        """Tokens that have a text. The model's logits may be padded to more."""
        self.special = frozenset(
            token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special
        )
        """Tokens that are no part of a text, as a rule."""
        self._spelling = spelling_of(tokenizer)
        self._tables: dict[frozenset[int], TokenBytes] = {}
        """By the tokens that are hidden. One entry for each set of markers a model has."""
        # Here, as tokenizers are loaded in a thread: it takes milliseconds.
        self._words = Words.of(tokenizer, self._encode_each)

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        revision: str | None = None,
        offline: bool = False,
    ) -> Tokenizer:
        """Load from a local directory, or from the Hugging Face Hub when there is none.

        `revision` and `offline` (use only what was fetched before) concern the Hub. Raises
        TokenizerNotFound, naming what is missing or unreadable. Blocks on disk and network.
        """
        files = read_model_files(source, revision=revision, offline=offline)
        try:
            tokenizer = tokenizers.Tokenizer.from_file(str(files.tokenizer))
        except Exception as error:
            # The library raises bare Exception for whatever it cannot parse.
            raise TokenizerNotFound(
                os.fspath(source), f"{files.tokenizer.name} is unreadable: {error}"
            ) from error
        return cls(tokenizer, files)

    @functools.cached_property
    def chat_templates(self) -> ChatTemplates:
        """The model's chat templates, compiled at first use. Raises NoChatTemplate when it has
        none, ChatTemplateError when one does not compile."""
        if not self._chat_template_sources:
            raise NoChatTemplate
        return ChatTemplates(self._chat_template_sources, self.special_tokens)

    def encode(self, text: str, *, add_special_tokens: bool) -> bytes:
        """Packed little-endian u32 ids. A rendered chat template has its special tokens already.

        Releases the GIL while it works, so a long text may be encoded in a thread without holding
        the event loop up. Text that looks like a special token becomes that token. Raises
        ValueError when the text cannot be UTF-8 (lone surrogates).
        """
        if self._words is not None and not add_special_tokens:
            return self._words.encode(text)
        [ids] = self._encode_each([text], add_special_tokens=add_special_tokens)
        return ids

    def encode_each(self, texts: list[str]) -> list[bytes]:
        """As `encode` without adding special tokens, several texts at once."""
        if self._words is not None:
            return list(map(self._words.encode, texts))
        return self._encode_each(texts)

    def _encode_each(self, texts: list[str], *, add_special_tokens: bool = False) -> list[bytes]:
        # The plain `encode` keeps the GIL; the batch form does not, and the fast one of it skips
        # the character offsets, which nobody here reads and which cost a third of the time.
        try:
            encodings = self._tokenizer.encode_batch_fast(
                texts, add_special_tokens=add_special_tokens
            )
        except TypeError as error:  # so says the library of a str that has no UTF-8 form
            raise ValueError("text with lone surrogates cannot be encoded") from error
        return [packed(one.ids) for one in encodings]

    @functools.cached_property
    def cut_marks(self) -> tuple[str, ...]:
        """Added tokens of the model's chat templates, in front of which a text may be cut and its
        parts encoded by themselves, with the same ids; see `actors.text.cuts`."""
        text = "\n".join([*self._chat_template_sources.values(), *self.special_tokens.values()])
        added = self._tokenizer.get_added_tokens_decoder().values()
        return safe_marks(added, [one.content for one in added if one.content in text])

    def decode(self, tokens: bytes | Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a whole sequence, packed or not; see `Detokenizer` for a growing one."""
        ids = unpacked(tokens) if isinstance(tokens, bytes) else [*tokens]
        text: str = self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
        return text

    def detokenizer(
        self, *, skip_special_tokens: bool = True, shown: Iterable[str] = ()
    ) -> Detokenizer:
        """A new stream. Special tokens named in `shown` are text even if others are skipped."""
        hidden = self.special if skip_special_tokens else _NOTHING_HIDDEN
        if shown:
            hidden -= {self._tokenizer.token_to_id(marker) for marker in shown}
        table = self._table(hidden)
        return (
            WindowDetokenizer(self._tokenizer, hidden) if table is None else ByteDetokenizer(table)
        )

    def _table(self, hidden: frozenset[int]) -> TokenBytes | None:
        table = self._tables.get(hidden)
        if table is None and self._spelling is not None:
            table = TokenBytes(self._tokenizer, self._spelling, hidden)
            self._tables[hidden] = table
        return table

    def token_bytes(self, token: int) -> bytes:
        """What one token adds to a text, also a special one; may be part of a character. Empty
        for an id outside the vocabulary."""
        table = self._table(_NOTHING_HIDDEN)
        if table is not None:
            return table[token]
        return self.decode([token], skip_special_tokens=False).encode()


def _eos_token_ids(tokenizer: tokenizers.Tokenizer, files: ModelFiles) -> tuple[int, ...]:
    own = tokenizer.token_to_id(files.special_tokens().get("eos_token", ""))
    named = files.eos_token_ids()
    return tuple(dict.fromkeys(named if own is None else (*named, own)))
