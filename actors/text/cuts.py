"""Where a text may be cut so that its parts, tokenised one by one, give the ids of the whole. Pure.

A tokenizer splits its text at *added tokens* (`<|eot_id|>`, say) before it does anything else, and
works on what is between them piece by piece. So a text may be cut in front of such a token, if
nothing before it can change its being read as that token, and it changes nothing before it:

    - it is looked for in the text as it is, not in its normalised form;
    - it takes no white space to its left or right, and needs no border of a word;
    - it begins with punctuation: neither white space, which a token before it may take along,
      nor a character of a word, which such a token may mind;
    - no other added token contains it, or ends with what it begins with; nor does it overlap
      itself.

A part begins with its token, so that for the tokenizer the rest is not at the beginning of a text,
just as in the whole. `tests/actors/text/test_cuts.py` compares on tokenizers of all kinds.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from itertools import pairwise

import tokenizers

MIN_PART = 1024
"""Characters between two cuts, at least: shorter parts cost more to find than to tokenise."""
MAX_MARKS = 8
"""Tokens that are cut at. Each costs a search of the text."""
_PUNCTUATION = frozenset(string.punctuation) - {"_"}


def cut(text: str, marks: Iterable[str], min_part: int = MIN_PART) -> list[str]:
    """The text in parts, each but the first beginning with a mark; from the left, so that a longer
    text is cut in the same places as far as it is the same."""
    places = [0]
    ahead = dict.fromkeys(marks, -1)
    """Where each mark comes next; those that come no more are left out."""
    at = min_part
    while True:
        ahead = {
            mark: found
            for mark, place in ahead.items()
            if (found := place if place >= at else text.find(mark, at)) >= 0
        }
        if not ahead:
            break
        places.append(min(ahead.values()))
        at = places[-1] + min_part
    return [text[start:end] for start, end in pairwise([*places, len(text)])]


def safe_marks(tokens: Iterable[tokenizers.AddedToken], wanted: Iterable[str]) -> tuple[str, ...]:
    """Those of the `wanted` added tokens that a text may be cut in front of, where `tokens` are all
    that the tokenizer has; see the module."""
    added = {token.content: token for token in tokens}
    return tuple(
        mark
        for mark in wanted
        if mark in added
        and _stands_alone(added[mark])
        and not any(_reaches_into(other, mark) for other in added)
    )[:MAX_MARKS]


def _stands_alone(token: tokenizers.AddedToken) -> bool:
    if token.normalized or token.lstrip or token.rstrip or token.single_word:
        return False
    return token.content[:1] in _PUNCTUATION


def _reaches_into(other: str, mark: str) -> bool:
    """Whether a match of `other` can cover the start of one of `mark`."""
    if other != mark and mark in other:
        return True
    return any(mark.startswith(other[at:]) for at in range(1, len(other)))
