from __future__ import annotations

import os
import pty
import termios
from collections.abc import Iterator
from typing import TextIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.console.screen import Screen, keys

NO_DEADLINE = settings(deadline=None)  # the machine may be busy


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """Our end of a terminal, and the end that programs have."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r+b", buffering=0) as raw:
        import io

        yield ours, io.TextIOWrapper(raw, write_through=True)
    os.close(ours)


@pytest.mark.parametrize(
    ("content", "pressed"),
    [
        (b"q", ("quit",)),
        (b"\x1b[A\x1b[B", ("up", "down")),
        (b"jk", ("down", "up")),
        (b"\x1b[C x", ()),
        (b"\x1b[Aq", ("up", "quit")),
    ],
)
def test_keys_are_told_apart(content: bytes, pressed: tuple[str, ...]) -> None:
    assert keys(content) == pressed


@NO_DEADLINE
@given(st.binary(max_size=64))
def test_any_bytes_are_keys_we_know_or_none(content: bytes) -> None:
    assert set(keys(content)) <= {"quit", "up", "down"}


def test_the_terminal_is_given_back_as_it_was_though_the_work_failed(
    terminal: tuple[int, TextIO],
) -> None:
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)

    def work() -> None:
        with Screen(theirs, theirs) as screen:
            assert termios.tcgetattr(theirs) != before
            screen.draw(["one", "two"])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()

    assert termios.tcgetattr(theirs) == before
    written = os.read(ours, 4096).decode()
    assert written.startswith("\x1b[?1049h")
    assert "one\x1b[K\r" in written
    assert written.endswith("\x1b[?25h\x1b[?1049l")


def test_a_key_ends_the_wait(terminal: tuple[int, TextIO]) -> None:
    ours, theirs = terminal
    with Screen(theirs, theirs) as screen:
        os.write(ours, b"q")

        assert screen.wait(30.0) == ("quit",)


def test_a_new_size_ends_the_wait_and_is_known(terminal: tuple[int, TextIO]) -> None:
    import signal

    _, theirs = terminal
    with Screen(theirs, theirs) as screen:
        termios.tcsetwinsize(theirs, (33, 77))
        os.kill(os.getpid(), signal.SIGWINCH)  # as the kernel does for a terminal of one's own

        assert screen.wait(30.0) == ()
        assert screen.size == (77, 33)
