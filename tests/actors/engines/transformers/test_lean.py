"""What is imported without torch's compiler, and that whoever wants the compiler still gets it."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from actors.engines.transformers import lean

COMPILER = "torch._dynamo"


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Stands for the compiler that is imported when somebody wants it; nobody has as yet."""
    monkeypatch.delitem(sys.modules, COMPILER, raising=False)
    monkeypatch.delitem(vars(torch), "_dynamo", raising=False)
    module = ModuleType(COMPILER)
    module.optimize = "optimised"  # type: ignore[attr-defined]
    monkeypatch.setattr(lean, "import_module", {COMPILER: module}.__getitem__)
    return module


def function() -> int:
    return 7


def test_marks_for_the_compiler_leave_functions_as_they_are(real: ModuleType) -> None:
    marks: Any = torch.compiler  # which has no types
    with lean.without_the_compiler():
        assert marks.disable(function) is function
        assert marks.disable(recursive=False)(function) is function
        assert marks.allow_in_graph(function) is function
        assert marks.assume_constant_result(function) is function
        assert not torch.distributed.is_available()

    assert COMPILER not in sys.modules
    assert "_dynamo" not in vars(torch)


def test_whoever_asks_for_more_gets_the_compiler_itself(real: ModuleType) -> None:
    with lean.without_the_compiler():
        stand_in = importlib.import_module(COMPILER)

        assert stand_in.optimize == "optimised"
        assert COMPILER not in sys.modules, "the next one imports it"


def test_a_compiler_that_is_there_already_is_left_there(
    real: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, COMPILER, real)

    with lean.without_the_compiler():
        assert sys.modules[COMPILER] is real

    assert sys.modules[COMPILER] is real
