"""Token ids to text, piece by piece, never with half a character.

Why not tokenizers' own `DecodeStream`. It decodes everything since its last output again for each
token, and it puts nothing out while the text ends in U+FFFD: a run of tokens that are no UTF-8 (a
client can force one with `logit_bias`) costs the square of its length, more than a second for 4000
tokens. It raises when a byte-fallback run breaks, and it cannot be flushed. Joining the bytes of
tokens and decoding UTF-8 incrementally takes constant memory and about half its time. Decoders
whose text is not a concatenation (WordPiece) go through a small window instead.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import tokenizers

from actors.text.token_bytes import TokenBytes, WholeTokens

WINDOW_LIMIT_TOKENS = 64
"""How many tokens may be held back while their text ends in an unfinished character."""


class Detokenizer(ABC):
    """One stream of tokens becoming text.

    The pieces put together are the same whatever the tokens were cut into, and equal to
    `Tokenizer.decode` of all of them, with one exception. When a run of byte tokens (`<0xE4>`) of
    a SentencePiece vocabulary is no valid UTF-8, `decode` gives one U+FFFD a byte, also for good
    characters of that run that a stream has already put out; a stream gives U+FFFD for the broken
    part only.
    """

    whole: WholeTokens | None = None
    """Set while the text of the next token depends on no other: what `push` would give for one that
    is in it. Such a token may be left out; it changes nothing."""

    @abstractmethod
    def push(self, tokens: Sequence[int]) -> str:
        """The text that is final after these tokens; may be empty. Ids outside the vocabulary
        add nothing."""

    @abstractmethod
    def flush(self) -> str:
        """The stream is over: what was held back, an unfinished character as U+FFFD."""


class ByteDetokenizer(Detokenizer):
    """For tokens that stand for bytes. Holds at most three bytes of an unfinished character."""

    __slots__ = ("_started", "_strip_left", "_table", "_unfinished", "whole")

    def __init__(self, table: TokenBytes) -> None:
        self._table = table
        self._unfinished = b""
        self._started = table.spelling.first_to_bytes is None
        self._strip_left = table.spelling.strip_limit
        self.whole = None

    def push(self, tokens: Sequence[int]) -> str:
        table = self._table
        if not self._started:
            spelled = b"".join(self._open(tokens))
        elif len(tokens) == 1:  # one token a step is nearly every call, and twice as fast this way
            spelled = table[tokens[0]]
        else:
            spelled = b"".join([table[token] for token in tokens])
        received = self._unfinished + spelled
        # The function beneath the standard incremental decoder, whose own layer is Python.
        text, used = codecs.utf_8_decode(received, "replace", False)  # noqa: FBT003  # positional only
        self._unfinished = received[used:]
        if self._strip_left:
            text = self._strip(text)
        settled = self._started and not self._unfinished and not self._strip_left
        self.whole = table.whole if settled else None
        return text

    def flush(self) -> str:
        text = self._unfinished.decode("utf-8", "replace")
        self._unfinished = b""
        return self._strip(text) if self._strip_left else text

    def _open(self, tokens: Sequence[int]) -> Iterator[bytes]:
        """Spell tokens while the one that opens the text is among them or still to come."""
        for token in tokens:
            if self._started:
                yield self._table[token]
            elif (opening := self._table.first(token)) is not None:
                self._started = True
                yield opening

    def _strip(self, text: str) -> str:
        leading = len(text) - len(text.lstrip(self._table.spelling.strip))
        dropped = min(leading, self._strip_left)
        self._strip_left = self._strip_left - dropped if dropped == len(text) else 0
        return text[dropped:]


class WindowDetokenizer(Detokenizer):
    """For any other decoder: the text of a window of tokens, less what of it went out before.

    The window keeps the tokens of the last output, because the decoder may join tokens
    differently at the start of a text than within it.
    """

    __slots__ = ("_hidden", "_sent", "_tokenizer", "_window")

    def __init__(self, tokenizer: tokenizers.Tokenizer, hidden: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._hidden = hidden
        self._window: list[int] = []
        self._sent = 0
        """How many of the window's tokens have gone out as text."""

    def push(self, tokens: Sequence[int]) -> str:
        return "".join([self._step(token) for token in tokens if token not in self._hidden])

    def flush(self) -> str:
        text = self._pending()
        self._sent = len(self._window)
        return text

    def _step(self, token: int) -> str:
        self._window.append(token)
        text = self._pending()
        unfinished = not text or text.endswith("\ufffd")
        if unfinished and len(self._window) - self._sent < WINDOW_LIMIT_TOKENS:
            return ""
        del self._window[: self._sent]
        self._sent = len(self._window)
        return text

    def _pending(self) -> str:
        decode = self._tokenizer.decode
        before: str = decode(self._window[: self._sent], skip_special_tokens=False)
        whole: str = decode(self._window, skip_special_tokens=False)
        return whole[len(before) :]
