"""Options are checked by the classes that take them, in another process."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from actors.runtime.options import Inquiry
from supervisor.topology import OptionsProcessError, TopologyError, check_options, read
from supervisor.topology.options_check import inquire
from tests.supervisor.topology.files import NO_ENVIRON

pytestmark = pytest.mark.process

_MODULE = """
import os, msgspec
print("noise that is no answer", flush=True)
os.write(1, b"and noise below Python")

class Engine(msgspec.Struct):
    model: str
    batch: int = 8

class Mine:
    class Options(msgspec.Struct):
        engine: Engine
"""

_GOOD = "children:\n  - name: mine\n    actor: own_roles:Mine\n    options: {engine: {model: m}}\n"


def check(tmp_path: Path, text: str, module: str = _MODULE, deadline_s: float = 60.0) -> list[str]:
    (tmp_path / "own_roles.py").write_text(module)
    path = tmp_path / "t.yaml"
    path.write_text(text)
    reading = read(path, environ=NO_ENVIRON)
    try:
        asyncio.run(check_options(reading, deadline_s=deadline_s))
    except TopologyError as error:
        return [str(problem).removeprefix(f"{tmp_path}/") for problem in error.problems]
    return []


def test_good_options_of_a_class_beside_the_topology_pass(tmp_path: Path) -> None:
    assert check(tmp_path, _GOOD) == []


def test_mistakes_in_options_are_told_at_their_place(tmp_path: Path) -> None:
    text = (
        "x-engine: &engine {model: 5, bach: 1}\n"
        "children:\n"
        "  - {name: a, actor: 'own_roles:Mine', options: {engine: *engine}}\n"
        "  - {name: b, actor: 'own_roles:Mien'}\n"
        "  - {name: c, actor: 'no_such:Mine'}\n"
    )
    expected_keys = "expected one of model, batch (did you mean 'batch'?)"
    found_class = "found no class 'Mien' (did you mean 'Mine'?)"
    import_error = "ModuleNotFoundError: No module named 'no_such'"
    assert check(tmp_path, text) == [
        "t.yaml:1:27: children[0].options.engine.model: expected a string; found 5",
        f"t.yaml:1:30: children[0].options.engine.bach: unknown key 'bach'; {expected_keys}",
        f"t.yaml:4:22: children[1].actor: expected a class in 'own_roles'; {found_class}",
        f"t.yaml:5:22: children[2].actor: cannot import 'no_such': {import_error}",
    ]


def test_a_missing_key_is_told_at_the_entry_that_has_no_options(tmp_path: Path) -> None:
    text = "children:\n  - {name: a, actor: 'own_roles:Mine'}\n"
    assert check(tmp_path, text) == ["t.yaml:2:5: children[0].options: missing key 'engine'"]


def test_a_module_that_ends_the_process_is_told(tmp_path: Path) -> None:
    module = "import os, sys; print('last words', file=sys.stderr, flush=True); os._exit(3)"
    (line,) = check(tmp_path, _GOOD, module)
    assert line == "t.yaml: cannot check options: importing the actors ended with 3: last words"


def test_a_module_that_does_not_finish_is_killed_at_the_deadline(tmp_path: Path) -> None:
    (line,) = check(tmp_path, _GOOD, "import threading; threading.Event().wait()", deadline_s=0.5)
    assert line == "t.yaml: cannot check options: importing the actors took over 0.5 s"


def test_an_inquiry_raises_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(OptionsProcessError, match="ended with"):
        asyncio.run(inquire([Inquiry(("a",), "a:B")], "check", tmp_path / "missing"))


def test_the_reader_imports_no_actor() -> None:
    program = (
        "import sys, supervisor.topology\n"
        "sys.exit(str([m for m in sys.modules if m.startswith('actors.')"
        " and not m.startswith('actors.runtime')] or '') or None)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
