"""The noise behind sampled tokens: a function of (seed, position), with no state.

SplitMix64's finaliser (Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
OOPSLA 2014) over a counter, twice: once to spread the seed, once to mix the position in. Plain
integers, so that every machine agrees.
"""

from __future__ import annotations

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, position: int) -> float:
    """A number in [0, 1), a multiple of 2**-53, for one token position of one seeded sequence."""
    return (_mix((_mix((seed + _GOLDEN) & _MASK) + position * _GOLDEN) & _MASK) >> 11) * 2.0**-53


def _mix(word: int) -> int:
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK
    return word ^ (word >> 31)
