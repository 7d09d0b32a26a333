"""A child's log file: rotated when the child starts, its last lines read when it has ended."""

from __future__ import annotations

import os
from pathlib import Path

ROTATE_AT_BYTES = 5 * 1024 * 1024
KEPT = 3
"""Older files, `.1` the newest."""
TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024


def rotate(path: Path, *, at_bytes: int = ROTATE_AT_BYTES, kept: int = KEPT) -> int:
    """Put a file that has grown to `at_bytes` aside; return where the next line will stand.

    Only between two runs: a running child has the file open and would follow it to its new name.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return 0
    if size < at_bytes:
        return size
    for number in range(kept, 0, -1):
        older = path if number == 1 else _numbered(path, number - 1)
        if older.exists():
            older.replace(_numbered(path, number))
    return 0


def size(path: Path) -> int:
    """Where the next line will stand."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def tail(path: Path, offset: int = 0, *, lines: int = TAIL_LINES) -> tuple[str, ...]:
    """The last non-empty lines that were written from `offset` on. A missing file has none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            start = max(offset, size - _TAIL_BYTES)
            file.seek(start)
            content = file.read()
    except FileNotFoundError:
        return ()
    found = content.decode(errors="replace").splitlines()
    if start > offset:
        found = found[1:]  # its beginning was cut off
    written = [line for line in found if line.strip()]
    return tuple(written[max(0, len(written) - lines) :])


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")
