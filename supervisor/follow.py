"""Reads a growing file along, woken by inotify whenever something was written to it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from supervisor.inotify import watch_writes

_READ_BYTES = 256 * 1024
_MAX_LINE_BYTES = 1024 * 1024
"""A longer line is handed on in pieces."""


class Follower:
    """Calls back with each line written to a file from an offset on, without its line end."""

    def __init__(self, path: Path, offset: int, on_line: Callable[[bytes], None]) -> None:
        """Raises OSError when the file is not there."""
        self._on_line = on_line
        self._rest = b""
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        os.lseek(self._file, offset, os.SEEK_SET)
        self._inotify = watch_writes(path)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._inotify, self._woken)
        # What was written before the watch began raises no event.
        self._loop.call_soon(self._read)

    def close(self) -> None:
        """No call comes after this. Safe to call twice, and from within `on_line`."""
        if self._file >= 0:
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)
            os.close(self._file)
            self._file = self._inotify = -1

    def _woken(self) -> None:
        os.read(self._inotify, _READ_BYTES)
        self._read()

    def _read(self) -> None:
        while self._file >= 0 and (content := os.read(self._file, _READ_BYTES)):
            *lines, self._rest = (self._rest + content).split(b"\n")
            if len(self._rest) > _MAX_LINE_BYTES:
                lines.append(self._rest)
                self._rest = b""
            for line in lines:
                if self._file >= 0:
                    self._on_line(line)
