"""A terminal taken over for a while: alternate screen, keys without Enter, and back again.

Plain ANSI sequences that every terminal of the last thirty years knows, also through ssh.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from types import FrameType, TracebackType
from typing import Self, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l"  # the other screen, and no cursor on it
_LEAVE = "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_REST_OF_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_READ_BYTES = 1024
_ARROWS = ((b"\x1b[A", "up"), (b"\x1bOA", "up"), (b"\x1b[B", "down"), (b"\x1bOB", "down"))
_LETTERS = {"q": "quit", "Q": "quit", "k": "up", "j": "down"}
_WAKING = (signal.SIGWINCH, signal.SIGTSTP)


class Screen:
    """Use as a context manager: the terminal is given back whatever happens inside."""

    def __init__(self, keyboard: TextIO, stream: TextIO) -> None:
        """Both must be terminals."""
        self._keyboard = keyboard.fileno()
        self._stream = stream
        self._before: list[object] = []
        self._handlers: dict[signal.Signals, object] = {}
        self._wake_read = self._wake_write = -1

    def __enter__(self) -> Self:
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in _WAKING:
            self._handlers[number] = signal.signal(number, self._signalled)
        # A closed window or a `kill` must not leave the terminal as we have made it.
        for number in (signal.SIGTERM, signal.SIGHUP):
            self._handlers[number] = signal.signal(number, _end)
        self._take()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError, termios.error):
            self._give_back()  # it may have gone away, and us because of it
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # as `signal` returned it
        os.close(self._wake_read)
        os.close(self._wake_write)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        found = shutil.get_terminal_size()
        with contextlib.suppress(OSError):
            # Asked of the terminal itself: $COLUMNS does not change with the window.
            found = os.get_terminal_size(self._stream.fileno())
        return found.columns, found.lines

    def draw(self, lines: Sequence[str]) -> None:
        """Replace what is shown, in one write and without a blank moment."""
        body = f"{_CLEAR_REST_OF_LINE}\r\n".join(lines)
        self._stream.write(f"{_HOME}{body}{_CLEAR_REST_OF_LINE}{_CLEAR_BELOW}")
        self._stream.flush()

    def wait(self, timeout_s: float) -> tuple[str, ...]:
        """What was pressed (`quit`, `up`, `down`); empty when the time is over, or at once when
        the window has another size. Ctrl-C raises KeyboardInterrupt as ever."""
        ready, _, _ = select.select([self._keyboard, self._wake_read], [], [], max(0.0, timeout_s))
        if self._wake_read in ready:
            self._woken()
        if self._keyboard not in ready:
            return ()
        content = os.read(self._keyboard, _READ_BYTES)
        return keys(content) if content else ("quit",)  # the terminal has gone

    def _woken(self) -> None:
        numbers = os.read(self._wake_read, _READ_BYTES)
        if signal.SIGTSTP in numbers:
            self._give_back()
            os.kill(os.getpid(), signal.SIGSTOP)
            self._take()  # from here on we are in the foreground again

    def _take(self) -> None:
        self._before = termios.tcgetattr(self._keyboard)
        tty.setcbreak(self._keyboard)
        self._stream.write(_ENTER)
        self._stream.flush()

    def _give_back(self) -> None:
        termios.tcsetattr(self._keyboard, termios.TCSADRAIN, self._before)  # type: ignore[arg-type]  # as tcgetattr returned it
        self._stream.write(_LEAVE)
        self._stream.flush()

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        with contextlib.suppress(BlockingIOError):  # full: it will wake up anyway
            os.write(self._wake_write, bytes([number]))


def keys(content: bytes) -> tuple[str, ...]:
    """What the bytes of a keyboard mean; those that mean nothing here are left out."""
    return tuple(_pressed(content))


def _pressed(content: bytes) -> Iterator[str]:
    while content:
        for sequence, key in _ARROWS:
            if content.startswith(sequence):
                yield key
                content = content[len(sequence) :]
                break
        else:
            key = _LETTERS.get(chr(content[0]), "")
            if key:
                yield key
            content = content[1:]


def _end(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
