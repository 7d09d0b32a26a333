"""msgspec's decoder with its complaints translated for a client of the API."""

from __future__ import annotations

import re
from typing import Generic, TypeVar

import msgspec

from actors.ingress.openai.errors import ApiError, bad_field, invalid_json, missing_field

T = TypeVar("T")

_PATH = re.compile(r"(?P<what>.*) - at (?:`key` in )?`\$(?P<path>[^`]*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>[^`]+)`")


class Decoder(Generic[T]):
    """JSON bytes to one type. Raises ApiError, and nothing else."""

    def __init__(self, kind: type[T]) -> None:
        self._decoder = msgspec.json.Decoder(kind)

    def decode(self, body: bytes | msgspec.Raw, *, within: str = "") -> T:
        """`within` is the path of this part in the whole body, for the error's `param`."""
        try:
            if isinstance(body, bytes) and not body.isascii():
                # Strings that are skipped, or kept raw, would otherwise go unread until later.
                body.decode()
            return self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _api_error(str(error), within) from error
        except UnicodeDecodeError as error:
            raise invalid_json(f"not UTF-8 at byte {error.start}.") from error
        except msgspec.DecodeError as error:
            raise invalid_json(f"{error}.") from error
        except RecursionError as error:
            raise invalid_json("nested too deeply.") from error


def unknown_fields(body: bytes, kind: type[msgspec.Struct]) -> tuple[str, ...]:
    """Names in a JSON object that are no fields of the struct; none when it cannot be read."""
    try:
        names = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except msgspec.DecodeError:
        # A skipped name may hold an escape that cannot be read, such as a lone surrogate.
        return ()
    return tuple(name for name in names if name not in kind.__struct_fields__)


def _api_error(complaint: str, within: str) -> ApiError:
    """From msgspec's text, which is the only place where it says which field is meant."""
    at = _PATH.fullmatch(complaint)
    what = at["what"] if at else complaint
    path = (at["path"] if at else "").replace("[...]", "")
    param = (within + path).removeprefix(".")
    if missing := _MISSING.fullmatch(what):
        return missing_field(f"{param}.{missing['name']}".removeprefix("."))
    if not param:
        return bad_field(None, f"The body of the request is invalid: {what}.")
    return bad_field(param, f"Invalid '{param}': {what}.")
