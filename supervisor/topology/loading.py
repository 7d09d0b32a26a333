"""The text of a file that a person wrote."""

from __future__ import annotations

from pathlib import Path

from supervisor.topology.errors import Problem, TopologyError
from supervisor.topology.places import Place

MAX_FILE_BYTES = 1 << 20


def load(path: Path, what: str = "a topology file") -> str:
    """The text of a file. Raises TopologyError when it cannot be opened, is no UTF-8, or is larger
    than `MAX_FILE_BYTES`; `what` names it then."""

    def refuse(message: str) -> TopologyError:
        return TopologyError([Problem(Place(str(path)), (), message)])

    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise refuse(f"expected {what}; {error.strerror or error}") from None
    if len(content) > MAX_FILE_BYTES:
        raise refuse(f"expected at most {MAX_FILE_BYTES} bytes; found more")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        place = Place(str(path), line, column)
        message = f"expected UTF-8 text; found the byte 0x{content[error.start]:02x}"
        raise TopologyError([Problem(place, (), message)]) from None
