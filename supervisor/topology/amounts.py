"""Amounts of a machine as people write them: `8GiB` of memory, processors `0-3,8`."""

from __future__ import annotations

import re

BYTES_PATTERN = r"^[0-9]+(\.[0-9]+)?(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)$"
CPUS_PATTERN = r"^[0-9]{1,4}(-[0-9]{1,4})?(,[0-9]{1,4}(-[0-9]{1,4})?)*$"
"""Both for the JSON Schema; the reader accepts what they match, within the limits below."""
MIN_MEMORY_BYTES = 16 * 1024 * 1024
"""Python alone needs more; a smaller number is a slip of the unit."""
MAX_MEMORY_BYTES = 1 << 60
MAX_CPU = 4095

_UNITS = {
    "B": 1,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
    "TiB": 1 << 40,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_BYTES = "an amount of memory such as 512MiB, 8GiB or a number of bytes, 16MiB at least"
_CPUS = f"processors such as 0-3, 0,2,4 or a list of numbers, {MAX_CPU} the highest"


def parse_bytes(value: object) -> int:
    """Bytes. Raises ValueError with what was expected."""
    match value:
        case bool():
            raise ValueError(_BYTES)
        case int():
            count = value
        case str():
            matched = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMGT]i?B|B)", value, re.ASCII)
            if matched is None:
                raise ValueError(_BYTES)
            number, unit = matched.groups()
            count = int(float(number) * _UNITS[unit])
        case _:
            raise ValueError(_BYTES)
    if not MIN_MEMORY_BYTES <= count <= MAX_MEMORY_BYTES:
        raise ValueError(_BYTES)
    return count


def parse_cpus(value: object) -> list[int]:
    """The processors in order, each once. Raises ValueError with what was expected."""
    match value:
        case str() if re.fullmatch(CPUS_PATTERN.removesuffix("$"), value, re.ASCII):
            chosen: set[int] = set()
            for part in value.split(","):
                first, _, last = part.partition("-")
                chosen |= set(range(int(first), int(last or first) + 1))
        case bool():
            raise ValueError(_CPUS)
        case int():
            chosen = {value}
        case list() if all(type(item) is int for item in value):
            chosen = set(value)
        case _:
            raise ValueError(_CPUS)
    if not chosen or min(chosen) < 0 or max(chosen) > MAX_CPU:
        raise ValueError(_CPUS)
    return sorted(chosen)
