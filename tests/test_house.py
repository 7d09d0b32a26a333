"""Who may import whom, read from the source: the rules of the house, held."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOUSE = Path(__file__).parent.parent
OURS = ("actors", "supervisor", "tests", "bench", "topologies")
HEAVY = ("torch", "transformers", "tensorrt_llm")

EVERY_NODE = {"aetcd", "google", "grpc", "msgspec", "structlog", "typing_extensions", "uvloop"}
"""What each process of the runtime loads; and what these load when it happens to be installed:"""
IF_INSTALLED = {"attr", "better_exceptions", "cython_runtime", "pygments", "rich"}
NODES: dict[str, set[str]] = {
    "actors.ingress.actor": {"httptools", "jinja2", "markupsafe", "tokenizers", "xxhash"},
    "actors.preprocessor.actor": {"jinja2", "markupsafe", "tokenizers"},
    "actors.router.actor": {"xxhash"},
    "actors.worker.actor, actors.engines.simulated.engine": {"xxhash"},
}
"""What each role loads besides: a package more costs time at every start, and memory."""

BASE = {"actors.access", "actors.runtime", "actors.messages", "actors.text", "actors.kv"}
ROLES = ("ingress", "preprocessor", "router", "worker")
MAY_IMPORT: dict[str, set[str]] = {
    "actors.runtime": set(),
    "actors.access": set(),
    "actors.messages": {"actors.runtime"},
    "actors.text": set(),
    "actors.kv": set(),
    "actors.engines": {"actors.kv", "actors.messages", "actors.text"},
    **{f"actors.{role}": BASE for role in ROLES},
    "actors.worker": {*BASE, "actors.engines"},
    "supervisor": {"actors.access", "actors.runtime", "actors.messages"},
}
"""Beside itself. `actors.chat`, the terminal over an engine, is outside the rooms."""

LIGHT = [
    "actors.runtime.process",
    "actors.ingress.actor",
    "actors.preprocessor.actor",
    "actors.router.actor",
    "actors.worker.options",
    "supervisor.cli",
]


def sources(room: str) -> list[Path]:
    found = (HOUSE / room.replace(".", "/")).rglob("*.py")
    # What benches install for themselves is nobody's of ours.
    return sorted(path for path in found if HOUSE / "bench" / "out" not in path.parents)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, wherever it stands in the file."""
    package = path.relative_to(HOUSE).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join([*above, *([node.module] if node.module else [])])
            # `from actors import chat` names a module too.
            yield from ((node.lineno, f"{start}.{alias.name}") for alias in node.names)


def room_of(name: str) -> str:
    """`actors.runtime` of `actors.runtime.node.Node`; `supervisor` of anything in it."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "actors" else parts[0]


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_a_room_imports_only_what_the_plan_allows(room: str) -> None:
    files = sources(room)
    assert files, f"{room} has no sources: the rule would hold for nothing"
    broken = [
        f"{path.relative_to(HOUSE)}:{line} imports {name}"
        for path in files
        for line, name in imports(path)
        if name.split(".")[0] in OURS and room_of(name) not in {room, *MAY_IMPORT[room]}
    ]

    assert broken == []


def test_every_room_has_a_rule() -> None:
    rooms = {f"actors.{path.parent.name}" for path in (HOUSE / "actors").glob("*/__init__.py")}

    assert rooms <= set(MAY_IMPORT)


def test_nothing_assigns_a_global() -> None:
    found = [
        f"{path.relative_to(HOUSE)}:{node.lineno}"
        for room in ("actors", "supervisor", "bench")
        for path in sources(room)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Global)
    ]

    assert found == []


def test_the_reader_of_imports_sees_all_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rules above would hold for nothing if the reader were blind."""
    text = "import actors.kv\nfrom actors import text\ndef f():\n    from ..router import actor\n"
    tree = tmp_path / "actors" / "runtime" / "imaginary.py"
    tree.parent.mkdir(parents=True)
    tree.write_text(text)
    monkeypatch.setattr(sys.modules[__name__], "HOUSE", tmp_path)

    names = {room_of(name) for _, name in imports(tree)}

    assert names == {"actors.kv", "actors.text", "actors.router"}


@pytest.mark.process
@pytest.mark.parametrize("module", LIGHT)
def test_a_light_module_loads_no_heavy_library(module: str) -> None:
    """In a process of its own: this one may have loaded anything."""
    script = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=HOUSE
    )

    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr[-2000:]


@pytest.mark.process
@pytest.mark.parametrize("modules", NODES)
def test_a_node_loads_only_the_packages_it_needs(modules: str) -> None:
    script = (
        f"import sys; before = {{*sys.modules}}; import actors.runtime.process, uvloop, {modules}\n"
        "names = {name.partition('.')[0] for name in {*sys.modules} - before}\n"
        "print(*sorted(names - sys.stdlib_module_names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=HOUSE
    )

    loaded = {name for name in done.stdout.split() if not name.startswith("_")} - {"actors"}
    assert loaded - IF_INSTALLED == EVERY_NODE | NODES[modules]
