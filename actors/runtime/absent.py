"""Importing a package as if another one were not installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def absent(package: str) -> Iterator[None]:
    """Within this, importing the package fails as it does where it is not installed, unless it has
    been imported already. For libraries that import another one where they can, at a cost, for
    something that nobody here wants of them."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # what the import system asks for
    try:
        yield
    finally:
        del sys.modules[package]
