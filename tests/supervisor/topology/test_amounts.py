from __future__ import annotations

import pytest

from supervisor.topology.amounts import parse_bytes, parse_cpus


@pytest.mark.parametrize(
    ("written", "count"),
    [
        ("8GiB", 8 << 30),
        ("1.5GiB", 3 << 29),
        ("512MiB", 512 << 20),
        ("2GB", 2 * 10**9),
        ("20000000B", 20_000_000),
        (1 << 30, 1 << 30),
    ],
)
def test_memory_has_units(written: object, count: int) -> None:
    assert parse_bytes(written) == count


@pytest.mark.parametrize("written", ["8G", "8 GiB", "8gib", "-1GiB", "8", 8, True, None, 1.5, []])
def test_what_is_no_amount_of_memory_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="512MiB, 8GiB or a number of bytes, 16MiB at least"):
        parse_bytes(written)


@pytest.mark.parametrize(
    ("written", "cpus"),
    [("0-3", [0, 1, 2, 3]), ("4,0-1", [0, 1, 4]), ([3, 1, 3], [1, 3]), (5, [5]), ("7", [7])],
)
def test_processors_are_listed_or_ranges(written: object, cpus: list[int]) -> None:
    assert parse_cpus(written) == cpus


@pytest.mark.parametrize("written", ["", "3-1", "a", "0-", "-1", [], [-1], [True], 4096, True, 1.0])
def test_what_are_no_processors_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="processors such as 0-3"):
        parse_cpus(written)
