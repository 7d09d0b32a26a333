"""Being told by the kernel that a file was written to."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

_IN_MODIFY = 0x2


def watch_writes(path: Path) -> int:
    """A descriptor that becomes readable when the file is written to. Raises OSError."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    if libc.inotify_add_watch(descriptor, os.fsencode(path), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        os.close(descriptor)
        raise OSError(number, os.strerror(number), str(path))
    return descriptor
