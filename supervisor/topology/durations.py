"""Durations as people write them: `300ms`, `5s`, `2m`, `1h`, or a number of seconds."""

from __future__ import annotations

import math
import re

DURATION_PATTERN = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h)$"
"""For the JSON Schema; the reader accepts exactly what it matches, within `MAX_DURATION_S`."""
MAX_DURATION_S = 366 * 24 * 3600.0
"""A year; a longer one is a slip of the unit."""
_EXPECTED = 'a duration such as "300ms", "5s", "2m", "1h" or a number of seconds, a year at most'
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_duration(value: object) -> float:
    """Seconds. Raises ValueError with what was expected."""
    match value:
        case bool():
            raise ValueError(_EXPECTED)
        case int() | float():
            return _checked(value)
        case str():
            matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)", value, re.ASCII)
            if matched is None:
                raise ValueError(_EXPECTED)
            number, unit = matched.groups()
            # Dividing keeps 300ms the float nearest to 0.3; multiplying by 0.001 does not.
            return _checked(
                float(number) / 1000 if unit == "ms" else float(number) * _SECONDS[unit]
            )
        case _:
            raise ValueError(_EXPECTED)


def parse_shutdown(value: object) -> float:
    """Seconds to wait before killing; `infinity` is inf, `brutal_kill` is 0. Raises ValueError."""
    if value == "infinity":
        return math.inf
    if value == "brutal_kill":
        return 0.0
    try:
        return parse_duration(value)
    except ValueError:
        raise ValueError(f"infinity, brutal_kill or {_EXPECTED}") from None


def _checked(seconds: float) -> float:
    if not 0 <= seconds <= MAX_DURATION_S:
        raise ValueError(_EXPECTED)
    return float(seconds)
