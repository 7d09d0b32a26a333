"""Tokenising only the parts of a prompt that were not seen before.

Turn N of a conversation repeats everything of turn N - 1, and conversations of one application
share their system prompt. The text is cut in places where that changes nothing
(`actors.text.cuts`), and each part's ids are kept, by the part's text.
"""

from __future__ import annotations

import sys
import threading
from collections import OrderedDict
from collections.abc import Sequence

from actors.text.cuts import MIN_PART, cut
from actors.text.tokenizer import Tokenizer

ENTRY_BYTES = 200
"""What an entry takes besides text and ids, about."""


class PromptCache:
    """Parts of prompts and their ids, those used last. May be used from several threads."""

    def __init__(self, tokenizer: Tokenizer, max_bytes: int) -> None:
        self.size_bytes = 0
        self.hits = 0
        """Characters whose ids were known."""
        self.misses = 0
        """Characters that had to be tokenised."""
        self._tokenizer = tokenizer
        self._marks = tokenizer.cut_marks if max_bytes else ()
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def encode(self, text: str) -> bytes:
        """The ids of a text that has its special tokens already, as `Tokenizer.encode` gives them.
        Raises ValueError as that does."""
        parts = cut(text, self._marks) if len(text) >= 2 * MIN_PART and self._marks else [text]
        if len(parts) == 1:
            self.misses += len(text)
            return self._tokenizer.encode(text, add_special_tokens=False)
        with self._lock:
            found = [self._kept.get(part) for part in parts]
        missing = [part for part, ids in zip(parts, found, strict=True) if ids is None]
        made = iter(self._tokenizer.encode_each(missing))
        ids = [next(made) if known is None else known for known in found]
        self._keep(parts, ids)
        new = sum(map(len, missing))
        self.misses += new
        self.hits += len(text) - new
        return b"".join(ids)

    def _keep(self, parts: Sequence[str], ids: Sequence[bytes]) -> None:
        with self._lock:
            for part, packed in zip(parts, ids, strict=True):
                if self._kept.get(part) is None:
                    self.size_bytes += _bytes_of(part, packed)
                    self._kept[part] = packed
                self._kept.move_to_end(part)
            while self.size_bytes > self._max_bytes:
                self.size_bytes -= _bytes_of(*self._kept.popitem(last=False))


def _bytes_of(part: str, ids: bytes) -> int:
    return sys.getsizeof(part) + len(ids) + ENTRY_BYTES
