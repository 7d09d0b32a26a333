"""What a command line changes in a topology: `--set PATH=VALUE`, `--port` and `--namespace`.

Changes are made to the document, after its anchors are expanded and before anything is checked: a
changed value is held to the same rules as a written one, and its place is the option that gave it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from actors.runtime.options import nearest, show
from supervisor.topology.document import MAX_DEPTH, Document, Plain, read_yaml
from supervisor.topology.errors import Problem, TopologyError
from supervisor.topology.machines import Here
from supervisor.topology.places import Path, Place, Places, show_path
from supervisor.topology.roles import BUILT_IN

_PART = re.compile(r"\.?(?P<name>[A-Za-z0-9_-]+)|\[(?P<index>[0-9]{1,6})\]")
_EXAMPLE = "path=value, such as children.context.replicas=2"


class Overrides(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one command line; later ones of `sets` win."""

    sets: tuple[str, ...] = ()
    """`path=value` each. A path names keys and, in a list, an index or an entry's name:
    `children[0].replicas`, `children.context.options.engine.model`, at any depth of the tree. The
    value is YAML."""
    port: int | None = None
    """The `options.port` of every ingress."""
    namespace: str | None = None
    here: Here | None = None
    """Read only the part for this machine."""
    without_workers: bool = False
    """Leave the workers out: they run elsewhere, as ranks of a program that is nobody's child."""


NO_OVERRIDES = Overrides()


class _PathError(Exception):
    def __init__(self, path: Path, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.path = path
        self.suggestion = suggestion


def override(document: Document, overrides: Overrides, environ: Mapping[str, str]) -> Document:
    """The document with the changes made. Raises TopologyError with all that cannot be made."""
    if overrides == NO_OVERRIDES or not isinstance(document.data, dict):
        return document
    editor = _Editor(document)
    for setting in overrides.sets:
        editor.set(setting, environ)
    if overrides.port is not None:
        editor.set_port(overrides.port)
    if overrides.namespace is not None:
        editor.put(("namespace",), overrides.namespace, "--namespace")
    if editor.problems:
        raise document.error(editor.problems)
    return Document(document.source, document.text, editor.data, editor.places)


class _Editor:
    """A copy of a document's data and places, to be changed."""

    def __init__(self, document: Document) -> None:
        self.data: Plain = copy.deepcopy(document.data)
        self.places = dict(document.places)
        self.problems: list[Problem] = []

    def set(self, setting: str, environ: Mapping[str, str]) -> None:
        written, equals, text = setting.partition("=")
        origin = f"--set {written}"  # never the value: it may be a password
        parts = _split(written)
        if not equals or parts is None:
            self.problems.append(Problem(Place(origin), (), f"expected {_EXAMPLE}; found no such"))
            return
        try:
            value = read_yaml(text, origin, environ).data
            self.put(self._resolve(parts, origin), value, origin)
        except TopologyError as error:
            self.problems += [
                Problem(Place(origin), (), p.message, p.suggestion) for p in error.problems
            ]
        except _PathError as error:
            problem = Problem(Place(origin), error.path, str(error), error.suggestion)
            self.problems.append(problem)

    def set_port(self, port: int) -> None:
        found = False
        for path, actor in _actors(self.data.get("children"), ("children",)):
            if actor["actor"] in ("ingress", BUILT_IN["ingress"]):
                found = True
                if not isinstance(actor.get("options"), dict):
                    self.put((*path, "options"), {}, "--port")
                self.put((*path, "options", "port"), port, "--port")
        if not found:
            message = "expected an ingress in the topology to give the port to; found none"
            self.problems.append(Problem(Place("--port"), (), message))

    def put(self, path: Path, value: Plain, origin: str) -> None:
        """Set what is at `path`, whose parent exists."""
        self._at(path[:-1])[path[-1]] = value
        for known in [known for known in self.places if known[: len(path)] == path]:
            del self.places[known]
        self.places[path] = Places(Place(origin), Place(origin))

    def _resolve(self, parts: Path, origin: str) -> Path:
        """The path in the data; mappings on the way to a new key are made. Raises _PathError."""
        if str(parts[0]).startswith("x-"):
            message = "expected a path that still matters; x- keys have done their work by now"
            raise _PathError(parts, message)
        path: Path = ()
        here = self.data
        for depth, part in enumerate(parts, start=1):
            match here, part:
                case list(), int() if part < len(here):
                    path = (*path, part)
                case list(), int():
                    message = f"expected an index below {len(here)}; found {part}"
                    raise _PathError((*path, part), message)
                case list(), str():
                    path = _find_entry(here, part, path)
                case dict(), str():
                    path = (*path, part)
                case _:
                    kind = "a list" if isinstance(part, int) else "a mapping"
                    message = f"expected {kind} at {show_path(path)}; found {show(here)}"
                    raise _PathError((*path, part), message)
            if depth < len(parts) and self._at(path) is None:
                # A key made here is checked with all others: a misspelt one is told.
                self.put(path, {}, origin)
            here = self._at(path)
        return path

    def _at(self, path: Path) -> Plain:
        here = self.data
        for part in path:
            here = here.get(part) if isinstance(here, dict) else here[part]
        return here


def _split(written: str) -> Path | None:
    """`a.b[0]` as its parts; None when it is no path."""
    parts: list[str | int] = []
    end = 0
    while end < len(written):
        matched = _PART.match(written, end)
        if matched is None or (end == 0) == matched[0].startswith((".", "[")):
            return None
        parts.append(matched["name"] or int(matched["index"]))
        end = matched.end()
    return tuple(parts) if 0 < len(parts) <= MAX_DEPTH else None


def _find_entry(entries: list[Plain], name: str, path: Path) -> Path:
    """The path of the entry with that name: in this list, else anywhere below it."""
    names: dict[str, Path] = {}
    for found, entry_name in _named(entries, path):
        names.setdefault(entry_name, found)
    if name in names:
        return names[name]
    if not names:
        raise _PathError((*path, name), "expected an index such as [0] into a list of no names")
    message = f"expected one of {', '.join(names)}; found '{name}'"
    raise _PathError((*path, name), message, nearest(name, names))


def _named(entries: list[Plain], path: Path) -> Iterator[tuple[Path, str]]:
    """Entries with the name each goes by, those of this list before those of inner ones."""
    mappings = [(i, entry) for i, entry in enumerate(entries) if isinstance(entry, dict)]
    for index, entry in mappings:
        for key in ("name", "role", "actor"):
            if isinstance(entry.get(key), str):
                yield (*path, index), entry[key]
                break
    for index, entry in mappings:
        if isinstance(entry.get("children"), list):
            yield from _named(entry["children"], (*path, index, "children"))


def _actors(entries: object, path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every mapping that describes an actor, at any depth."""
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        if "actor" in entry:
            yield (*path, index), entry
        for key in ("actors", "children"):
            yield from _actors(entry.get(key), (*path, index, key))
