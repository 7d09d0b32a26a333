"""Gathers the problems of one document while it is turned into a topology."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from actors.runtime.options import check
from supervisor.topology.document import Document
from supervisor.topology.errors import Problem
from supervisor.topology.forms import FORMS
from supervisor.topology.places import Path

_SECRETS = frozenset({"password", "token"})

Form = TypeVar("Form", bound=msgspec.Struct)


class Collector:
    """Mistakes are added, not raised, so that one reading shows all of them."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.problems: list[Problem] = []

    def add(
        self, path: Path, message: str, suggestion: str | None = None, *, at_key: bool = False
    ) -> None:
        """Note a mistake at `path`."""
        self.problems.append(self.document.problem(path, message, suggestion, at_key=at_key))

    def decode(self, data: object, form: type[Form], path: Path) -> Form | None:
        """Read the data at `path` as `form`; None when that added problems."""
        value, faults = check(data, form, forms=FORMS)
        for fault in faults:
            message = fault.message
            if fault.path and fault.path[-1] in _SECRETS and fault.at == "value":
                # `${PASSWORD}` may turn out to be digits; they must not reach a terminal.
                message = "expected a string (in single quotes if of digits); found another value"
            self.add((*path, *fault.path), message, fault.suggestion, at_key=fault.at == "key")
        return value if isinstance(value, form) else None
