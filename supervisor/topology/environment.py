"""What a topology takes from the environment: `${VAR}`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from actors.runtime.options import nearest

_REFERENCE = re.compile(
    r"(?P<escape>\$\$\{)|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{"
)


class SubstitutionError(Exception):
    """A `${...}` that cannot be replaced."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


def substitute(text: str, environ: Mapping[str, str]) -> tuple[str, bool]:
    """Replace `${VAR}` and `${VAR:-default}`; `$${` becomes `${`. What is put in is not read again.

    Returns the text, and whether all of it came from one reference. As in a shell, the default
    also stands in for a variable that is set to nothing.

    Raises SubstitutionError for a variable that is not set and has no default, and for a `${` that
    begins no reference.
    """

    def replacement(match: re.Match[str]) -> str:
        if match["escape"]:
            return "${"
        name, default = match["name"], match["default"]
        if name is None:
            message = "expected ${NAME} or ${NAME:-default}; found '${' (write $${ to mean it)"
            raise SubstitutionError(message)
        value = environ.get(name)
        if default is not None:
            return value or str(default)
        if value is None:
            message = f"expected environment variable {name}, or a default; found it unset"
            raise SubstitutionError(message, nearest(name, environ))
        return value

    whole = _REFERENCE.fullmatch(text)
    return _REFERENCE.sub(replacement, text), whole is not None and whole["escape"] is None
