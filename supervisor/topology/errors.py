"""What is wrong with a topology, and where.

TopologyError      a file could not be used; holds every problem found
  └── Problem      one mistake: place, path in the document, expected and found, suggestion
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from supervisor.topology.places import Path, Place, show_path

_LINE_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")  # what YAML counts as one
_MAX_SHOWN_COLUMNS = 160


class Problem(msgspec.Struct, frozen=True):
    """One mistake. Its text is one line in the form that compilers use."""

    place: Place
    path: Path
    """Empty when the mistake is in the file as a whole, as with broken YAML."""
    message: str
    """What was expected and what was found."""
    suggestion: str | None = None
    """The nearest valid key or value."""

    def __str__(self) -> str:
        where = f"{self.place}: {show_path(self.path)}" if self.path else str(self.place)
        meant = "" if self.suggestion is None else f" (did you mean '{self.suggestion}'?)"
        return f"{where}: {self.message}{meant}"


class TopologyError(Exception):
    """A topology that cannot be used. `problems` is never empty; it is in the order of the file."""

    def __init__(
        self, problems: Sequence[Problem], source: str = "", *, file: str | None = None
    ) -> None:
        assert problems, "an error needs a reason"
        unique: dict[tuple[Place, str], Problem] = {}
        for problem in sorted(problems, key=lambda p: (p.place.line, p.place.column)):
            # An anchor used in three places is wrong once.
            unique.setdefault((problem.place, problem.message), problem)
        self.problems = tuple(unique.values())
        self.source = source
        """The text of the file, as far as it was read."""
        self.file = file
        """Its name, if problems may be in other files too."""
        super().__init__("\n".join(str(problem) for problem in self.problems))


def render(error: TopologyError, source: str | None = None) -> str:
    """Each problem, its line of the source and a caret under its column; for a terminal.

    `source` is the text of the file; by default the one the error carries.
    """
    lines = _LINE_BREAK.split(error.source if source is None else source)
    return "\n".join(
        _render(problem, lines) if error.file in {None, problem.place.source} else str(problem)
        for problem in error.problems
    )


def _render(problem: Problem, lines: list[str]) -> str:
    line, column = problem.place.line, problem.place.column
    if not 1 <= line <= len(lines) or not lines[line - 1].strip():
        return str(problem)
    text = lines[line - 1][:_MAX_SHOWN_COLUMNS]
    gutter = f"{line:>5} | "
    # Tabs are kept before the caret, so that it stands under its character at any tab width.
    indent = "".join("\t" if c == "\t" else " " for c in text[: column - 1])
    caret = f"\n{' ' * (len(gutter) - 2)}| {indent}^" if column <= len(text) + 1 else ""
    return f"{problem}\n{gutter}{text}{caret}"
