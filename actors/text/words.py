"""Tokenising by the words that were seen before.

The tokenizers of today's models cut a text at *added tokens*, then into words by a regular
expression, and turn each word into ids by itself. Of this the library does the last part quickly
and the rest dearly. Here the standard library's `re` finds the words, and their ids come out of a
dictionary. The library is asked for words that are new, and for whole texts that are not plain
ASCII, as only there both read an expression alike beyond doubt. See
docs/decisions/0044-words-are-looked-up.md.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from typing import Any

import tokenizers

Split = Callable[[str], list[str]]
EncodeEach = Callable[[list[str]], list[bytes]]
"""The library's way from texts, without added tokens, to their ids."""

WORDS_KEPT = 32_768
"""All are forgotten when there are more: those in use are back soon."""
WORD_LIMIT = 64
"""Characters of a word that is kept, at most."""
LOOK = 16_384
"""Characters that are cut into words at a time: `re` lets no other thread work meanwhile."""

_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ByteLevel cuts by when it does that itself."""
_SAMPLES = (
    "It's 12345 o'clock, I'LL say: you're LATE!\n\n  Then\tshe'd  gone...  \n",
    " leading, trailing ",
    "a_b-c/d\\e (f) [g] {h} <i> 'j' \"k\" #l @m $n %o ^p &q *r =s +t ~u `v`|w;x?y",
    "\r\n \r\n\t\x0b\x0c  \x00\x1c\x1f\x7f",
    "camelCaseWords HTTPServer x1y2z3 0x1F 1,000.50 don'T",
    "for (int i = 0; i < 10; ++i) {\n    sum += a[i];\n}\n\n\n",
)


class Words:
    """A tokenizer's ids for text, mostly without it. May be used from several threads."""

    def __init__(
        self,
        split: Split,
        added: dict[str, bytes],
        encode_each: EncodeEach,
        look: int = LOOK,
    ) -> None:
        """`split`: a text without added tokens into words; `added`: these tokens and their ids;
        `look`: characters that are split at a time, about."""
        self._split = split
        self._look = look
        self._added = added
        longest_first = sorted(added, key=len, reverse=True)
        self._at_added = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        self._encode_each = encode_each
        self._known: dict[str, bytes] = {}

    @classmethod
    def of(
        cls, tokenizer: tokenizers.Tokenizer, encode_each: EncodeEach, look: int = LOOK
    ) -> Words | None:
        """None when the tokenizer does not work word by word, or not as expected."""
        split = splitter_of(tokenizer)
        added = _added_tokens(tokenizer)
        if split is None or added is None:
            return None
        made = cls(split, added, encode_each, look)
        samples = [*_SAMPLES, *(f"one{token}two" for token in added)][:50]
        return made if [made.encode(text) for text in samples] == encode_each(samples) else None

    def __len__(self) -> int:
        """How many words are known."""
        return len(self._known)

    def encode(self, text: str) -> bytes:
        """The ids that the tokenizer gives, without those that it adds around a text. Raises
        ValueError as it does."""
        if not self._added:
            return self._between(text)
        parts = self._at_added.split(text)
        ids = [self._between(parts[0])]
        for token, after in zip(parts[1::2], parts[2::2], strict=True):
            ids.append(self._added[token])
            if after:
                ids.append(self._between(after))
        return b"".join(ids)

    def _between(self, text: str) -> bytes:
        if not text.isascii():
            return self._encode_each([text])[0]
        if len(text) <= self._look:
            ids = self._look_up(self._split(text))
        else:
            looked_up = [self._look_up(words) for words in self._in_looks(text)]
            ids = None if None in looked_up else b"".join(filter(None, looked_up))
        return self._encode_each([text])[0] if ids is None else ids

    def _in_looks(self, text: str) -> Iterator[list[str]]:
        """The words of a long text. Nothing past the last two words of a look has been looked at
        when one before them was found: an expression looks one character ahead at most."""
        at, size = 0, self._look
        while at + size < len(text):
            words = self._split(text[at : at + size])
            sure = words[:-2]
            if sure:
                yield sure
                at, size = at + sum(map(len, sure)), self._look
            else:
                size *= 2
        yield self._split(text[at:])

    def _look_up(self, words: list[str]) -> bytes | None:
        """None when one of them would be read otherwise by itself."""
        ids = list(map(self._known.get, words))
        if None not in ids:
            return b"".join(ids)  # type: ignore[arg-type]
        unknown = (word for word, known in zip(words, ids, strict=True) if known is None)
        new = list(dict.fromkeys(unknown))
        if any(self._split(word) != [word] for word in new):
            return None
        made = dict(zip(new, self._encode_each(new), strict=True))
        if len(self._known) + len(made) > WORDS_KEPT:
            self._known = {}
        self._known.update((word, one) for word, one in made.items() if len(word) <= WORD_LIMIT)
        return b"".join(
            made[word] if known is None else known for word, known in zip(words, ids, strict=True)
        )


def splitter_of(tokenizer: tokenizers.Tokenizer) -> Split | None:
    """What cuts a plain ASCII text, without added tokens, into this tokenizer's words; None when
    that is not known."""
    if not isinstance(tokenizer.model, tokenizers.models.BPE) or tokenizer.model.dropout:
        return None
    if tokenizer.normalizer is not None and _state(tokenizer.normalizer)["type"] != "NFC":
        return None
    if tokenizer.pre_tokenizer is None:
        return None
    *splits, last = _steps(_state(tokenizer.pre_tokenizer))
    if last["type"] != "ByteLevel" or last["add_prefix_space"]:
        return None
    patterns = [_GPT_2] if last["use_regex"] else []
    for step in reversed(splits):
        match step:
            case {"type": "Split", "pattern": {"Regex": str(found)}, "behavior": "Isolated"}:
                patterns.insert(0, found)
            case _:
                return None
        if step["invert"]:
            return None
    translated = [for_ascii(pattern) for pattern in patterns]
    cutters = [_cutter(pattern) for pattern in translated if pattern is not None]
    return reduce(_then, cutters) if cutters and len(cutters) == len(patterns) else None


def _cutter(pattern: re.Pattern[str]) -> Split:
    find = pattern.findall
    with_gaps = re.compile(f"({pattern.pattern})", pattern.flags)

    def cut(text: str) -> list[str]:
        words: list[str] = find(text)
        if len("".join(words)) != len(text):  # what lies between two matches is a word, too
            return [word for word in with_gaps.split(text) if word]
        return words

    return cut


def _then(first: Split, second: Split) -> Split:
    return lambda text: [word for part in first(text) for word in second(part)]


_IN_CLASS = r"\\[sSrnt]|\\[^\w\s]|(?!&&|--|~~|\|\|)[^\\\[\]]"
_ELSEWHERE = (
    # Of one meaning in both libraries, and in ASCII: groups without a number, a look at the next
    # character, white space, quantifiers, and characters that stand for themselves.
    r"\(\?i?:|\(\?!(?=\\S\))|\\[sSrnt]|\\[^\w\s]|[|)*+?]|\{\d(?:,\d?)?\}(?![+?])|"
    r"[\w !\"#%',/:;<=>@`~-]"
)
_PROPERTY, _CLASS = r"\\p\{(?P<property>\w+)\}", r"(?P<opening>\[\^?)|(?P<group>\((?!\?))"
_WITHIN = re.compile(f"{_PROPERTY}|(?P<closing>\\])|{_IN_CLASS}")
_OUTSIDE = re.compile(f"{_PROPERTY}|{_CLASS}|{_ELSEWHERE}")
_NOTHING = r"[^\s\S]"
"""Matches no character."""


def for_ascii(pattern: str) -> re.Pattern[str] | None:
    """A tokenizer's expression as one of the standard library's that finds the same in plain ASCII;
    None when it holds something that is not known to mean the same."""
    parts: list[str] = []
    at, within = 0, False
    while at < len(pattern):
        found = (_WITHIN if within else _OUTSIDE).match(pattern, at)
        if found is None:
            return None
        at, part, kind = found.end(), found[0], found.lastgroup
        if kind == "property":
            members = _members(found["property"])
            part = members if within else f"[{members}]" if members else _NOTHING
        elif kind == "group":
            part = "(?:"
        elif kind in {"opening", "closing"}:
            within = kind == "opening"
        parts.append(part)
    try:
        return re.compile("".join(parts), re.ASCII)
    except re.error:
        return None


def _members(prefix: str) -> str:
    """The ASCII characters of a general category, for use in a class."""
    characters = map(chr, range(128))
    return "".join(
        re.escape(one) for one in characters if unicodedata.category(one).startswith(prefix)
    )


def _added_tokens(tokenizer: tokenizers.Tokenizer) -> dict[str, bytes] | None:
    """Those that are cut out of a text before all else, the longest that begins in a place first;
    None when one of them minds what is around it."""
    added = tokenizer.get_added_tokens_decoder()
    if tokenizer.encode_special_tokens:
        return None
    for token in added.values():
        # One that is looked for in normalised text is looked for in what the others leave.
        if token.normalized or token.lstrip or token.rstrip or token.single_word:
            return None
    return {token.content: number.to_bytes(4, "little") for number, token in added.items()}


def _state(part: Any) -> dict[str, Any]:
    # A part's state is its section of tokenizer.json, the only description it gives of itself.
    state: dict[str, Any] = json.loads(part.__getstate__())
    return state


def _steps(pre_tokenizer: dict[str, Any]) -> Iterable[dict[str, Any]]:
    if pre_tokenizer["type"] != "Sequence":
        return [pre_tokenizer]
    return [step for inner in pre_tokenizer["pretokenizers"] for step in _steps(inner)]
