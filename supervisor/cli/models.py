"""`supervise models`: the names that clients call models by."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import msgspec

from actors.messages.names import Kind
from supervisor.calls import Accepted, AddModel, ListModels, ModelName, ModelNames, RemoveModel
from supervisor.cli.arguments import Options
from supervisor.cli.ask import ask, refused
from supervisor.cli.main import EXIT_USAGE
from supervisor.console.text import printable

_USAGE = MappingProxyType(
    {
        "list": (0, "supervise models list"),
        "add": (3, "supervise models add chat|completion NAME TARGET"),
        "remove": (2, "supervise models remove chat|completion NAME"),
    }
)
"""How many words follow an action, and all of it."""
_HEADERS = ("NAME", "FOR", "STANDS FOR")


def models(options: Options, environ: Mapping[str, str]) -> int:
    """Do what the action says; the exit code."""
    words = [word for word in (options.model_kind, options.name, options.target) if word]
    count, usage = _USAGE[options.action or "list"]
    if len(words) != count:
        print(f"supervise: usage: {usage}", file=sys.stderr)
        return EXIT_USAGE
    if options.action == "list":
        return _list(options, environ)
    return _change(options, environ)


def _list(options: Options, environ: Mapping[str, str]) -> int:
    answer = ask(options, environ, ListModels())
    if not isinstance(answer, ModelNames):
        return refused(answer)
    if options.as_json:
        print(msgspec.json.format(msgspec.json.encode(answer.names)).decode())
    else:
        print("\n".join(render(answer.names)))
    return 0


def _change(options: Options, environ: Mapping[str, str]) -> int:
    kind = msgspec.convert(options.model_kind, type=Kind)
    name, target = options.name or "", options.target
    call = (
        RemoveModel(kind=kind, name=name)
        if target is None
        else AddModel(kind=kind, name=name, target=target, replace=options.replace)
    )
    answer = ask(options, environ, call)
    if not isinstance(answer, Accepted):
        return refused(answer)
    if options.as_json:
        done = {"action": options.action, "kind": kind, "name": name, "target": target}
        print(msgspec.json.encode(done).decode())
    elif target is None:
        print(f"{name} is no {kind} model any more")
    else:
        print(f"{name} is a {kind} model, and stands for {target}")
    return 0


def render(names: Sequence[ModelName]) -> list[str]:
    """The names as lines of text."""
    if not names:
        return ["no model is served, and no name was added"]
    rows = [_HEADERS, *((printable(one.name), " ".join(one.kinds), _meaning(one)) for one in names)]
    wide, kinds, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    return [f"{name:<{wide}}  {kind:<{kinds}}  {meaning}" for name, kind, meaning in rows]


def _meaning(one: ModelName) -> str:
    if one.target is None:
        return f"itself, on {', '.join(one.workers)}"
    return printable(one.target) + ("" if one.served else " (no worker has it)")
