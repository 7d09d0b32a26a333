from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.logfiles import rotate, tail


def test_a_small_file_stays_and_its_size_is_where_the_next_line_stands(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    assert rotate(log) == 0

    log.write_text("hello\n")

    assert rotate(log) == 6
    assert log.exists()


def test_a_grown_file_is_put_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    for number in range(5):
        log.write_text(f"{number}" * 10)
        assert rotate(log, at_bytes=10, kept=3) == 0

    kept = {path.name: path.read_text()[0] for path in tmp_path.iterdir()}
    assert kept == {"a.log.1": "4", "a.log.2": "3", "a.log.3": "2"}


@given(
    st.lists(st.text("ab \r", max_size=5)),
    st.lists(st.text("ab é", max_size=30), max_size=30),
    st.integers(1, 25),
)
def test_the_tail_is_the_last_lines_of_this_run_alone(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], now: list[str], count: int
) -> None:
    log = tmp_path_factory.getbasetemp() / "tail.log"
    earlier = "".join(f"{line}\n" for line in before).encode()
    log.write_bytes(earlier + "".join(f"{line}\n" for line in now).encode())

    expected = tuple(line for line in now if line.strip())[-count:]
    assert tail(log, len(earlier), lines=count) == expected


def test_of_a_long_file_no_line_is_cut(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    log.write_text("".join(f"{number:09}\n" for number in range(10_000)))

    assert all(len(line) == 9 for line in tail(log, lines=10_000))
    assert tail(log, lines=1) == ("000009999",)


def test_a_missing_file_has_no_tail(tmp_path: Path) -> None:
    assert tail(tmp_path / "none.log") == ()
