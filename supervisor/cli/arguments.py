"""What was written after `supervise`."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from supervisor.cli.commands import make_parser

_VALUED = frozenset(
    {"--set", "--port", "--namespace", "--node", "--state-dir", "--log-level", "--web", "--keys"}
)
"""Those that may stand before the command or the file and are followed by a value."""


class Options(argparse.Namespace):
    """What was written, or the defaults."""

    command: str
    file: Path | None = None
    child: str | None = None
    sets: list[str]
    port: int | None
    namespace: str | None
    node: str | None
    state_dir: str | None
    log_level: str | None
    level: Literal["debug", "info", "warning", "error"] | None = None
    """Of `log-level`."""
    as_json: bool = False
    force: bool = False
    now: bool = False
    rolling: bool = False
    replicas: int | None = None
    dry_run: bool = False
    yes: bool = False
    follow: bool = False
    lines: int = 20
    verbose: bool = False
    interval_s: float = 1.0
    web: int | None = None
    """The port of the page; 0 any that is free, None no page."""
    without_workers: bool = False
    action: str | None = None
    """Of `route`, `keys` and `models`."""
    prompt: str | None = None
    prompt_file: Path | None = None
    model: str | None = None
    chat: bool = False
    strategy: str | None = None
    session: str | None = None
    shell: str | None = None
    name: str | None = None
    keys_file: Path = Path("keys.json")
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None
    models: str = ""
    model_kind: str | None = None
    target: str | None = None
    replace: bool = False
    into: Path | None = None
    days: int = 3650
    renew: bool = False
    kind: str = "namespaces"


def parse(arguments: list[str]) -> Options:
    """Read the arguments; leaves the process for `--help` and for wrong usage."""
    parser, commands = make_parser()
    arguments = [
        "--web=0" if _is_bare_web(arguments, at) else word for at, word in enumerate(arguments)
    ]
    return parser.parse_args(_command_first(arguments, commands), namespace=Options())


def _is_bare_web(arguments: list[str], at: int) -> bool:
    """Whether `--web` stands without a number, perhaps before the file, which is not its port."""
    return arguments[at] == "--web" and not "".join(arguments[at + 1 : at + 2]).isdecimal()


def _command_first(arguments: list[str], commands: Collection[str]) -> list[str]:
    """The command at the front, where argparse wants it; `up` when the first word is a file."""
    if arguments == ["--version"]:
        return ["version"]
    index = 0
    while index < len(arguments) and arguments[index].startswith("-"):
        index += 2 if arguments[index] in _VALUED else 1
    if index >= len(arguments):
        return arguments
    if arguments[index] in commands:
        return [arguments[index], *arguments[:index], *arguments[index + 1 :]]
    return ["up", *arguments]
