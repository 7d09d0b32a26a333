"""Importing Transformers without torch's compiler and its distributed tensors.

No engine here compiles a model or spreads one over `torch.distributed`, but Transformers imports
both on the way to any model: the compiler (Dynamo, Inductor, sympy) for the sake of a few
decorators that mark functions for it, the tensors for the sake of `isinstance`. Without them a
process preloads an engine in a quarter less time, and is 400 modules and 38 MB smaller.

Within `without_the_compiler` a stand-in has the compiler's place. Its decorators hand back what
they are given, which is what they do for whoever does not compile; what else is asked of it, it
answers with the real one. Afterwards the real one is imported by whoever asks for it, as ever.
Transformers asks once whether torch can be distributed and remembers the answer; it has ways of
its own for a torch built without.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed

_COMPILER = "torch._dynamo"


@contextlib.contextmanager
def without_the_compiler() -> Iterator[None]:
    """Import within this what would import torch's compiler only to decorate with it."""
    if _COMPILER in sys.modules:
        yield  # somebody wanted it before us; there is nothing to save
        return
    stand_in = _StandIn(_COMPILER)
    _install(stand_in)
    try:
        with patch.object(torch.distributed, "is_available", return_value=False):
            yield
    finally:
        _remove(stand_in)


class _StandIn(ModuleType):
    """In the place of `torch._dynamo`."""

    __file__ = None
    __path__ = [str(Path(torch.__file__).parent / "_dynamo")]  # noqa: RUF012 - what a package has

    def disable(self, function: Any = None, *_: Any, **__: Any) -> Any:
        return _same if function is None else function

    def allow_in_graph(self, function: Any) -> Any:
        return function

    def assume_constant_result(self, function: Any) -> Any:
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        _remove(self)
        return getattr(import_module(_COMPILER), name)


def _same(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def _install(stand_in: _StandIn) -> None:
    sys.modules[_COMPILER] = stand_in
    torch._dynamo = stand_in  # noqa: SLF001 - it is what is replaced


def _remove(stand_in: _StandIn) -> None:
    if sys.modules.get(_COMPILER) is stand_in:
        del sys.modules[_COMPILER]
        del torch._dynamo  # noqa: SLF001 - torch imports it when it is asked for the next time
