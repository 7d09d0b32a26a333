"""What can be written after `supervise`."""

from __future__ import annotations

import argparse
from collections.abc import Collection
from pathlib import Path

DESCRIPTION = """\
Bring up the actors that a topology file describes, and keep them up.

  supervise topologies/disagg.yaml         start it here; Ctrl-C stops everything
  supervise status                         what is running
  supervise logs -f router                 what the router says
  supervise down                           stop it from elsewhere
"""
EXAMPLES = {
    "up": """\
examples:
  supervise topologies/disagg.yaml
  supervise topologies/disagg.yaml --port 8081 --namespace blue
  supervise up topologies/disagg.yaml --set children.context.replicas=2""",
    "check": """\
examples:
  supervise check topologies/disagg.yaml
  supervise check topologies/disagg.yaml --set children.router.options.temperature=0.5""",
    "schema": """\
example:
  supervise schema > topology.schema.json      # for the YAML support of an editor""",
    "version": "example:\n  supervise version",
    "status": """\
examples:
  supervise status                             # of the only one that runs
  supervise status topologies/disagg.yaml
  supervise status --namespace blue --json | jq '.children[].state'""",
    "down": """\
examples:
  supervise down
  supervise down --namespace blue --force      # kill, do not ask""",
    "restart": """\
examples:
  supervise restart context/0
  supervise restart router --namespace blue""",
    "events": """\
example:
  supervise events | jq 'select(.event == "ChildEnded")'""",
    "logs": """\
examples:
  supervise logs                               # the last lines of every child
  supervise logs -f context/0""",
}
_GLOBAL = "options of every command"
_VALUED = frozenset({"--set", "--port", "--namespace", "--state-dir", "--log-level"})
"""Those of every command that are followed by a value."""


class Options(argparse.Namespace):
    """What was written, or the defaults."""

    command: str
    file: Path | None = None
    child: str | None = None
    sets: list[str]
    port: int | None
    namespace: str | None
    state_dir: str | None
    log_level: str | None
    as_json: bool = False
    force: bool = False
    follow: bool = False
    lines: int = 20


def parse(arguments: list[str]) -> Options:
    """Read the arguments; leaves the process for `--help` and for wrong usage."""
    parser, commands = _parser()
    return parser.parse_args(_command_first(arguments, commands), namespace=Options())


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


def _parser() -> tuple[argparse.ArgumentParser, set[str]]:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="supervise",
        description=DESCRIPTION,
        usage="supervise FILE [options]\n       supervise COMMAND [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="supervise COMMAND --help tells more, with examples.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[:1].upper()}{text[1:]}.",
            epilog=EXAMPLES[name],
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    up = add("up", "start a topology and stay with it until it ends")
    up.add_argument("file", type=Path, metavar="FILE", help="the topology")
    check = add("check", "say everything that is wrong with a topology; start nothing")
    check.add_argument("file", type=Path, metavar="FILE", help="the topology")
    status = add("status", "show the tree of a running supervisor")
    _add_target(status)
    status.add_argument("--json", dest="as_json", action="store_true", help="for programs")
    restart = add("restart", "stop one child and start it again; wait until it is ready")
    restart.add_argument("child", metavar="NAME", help="a child as in `supervise status`")
    logs = add("logs", "print what children wrote")
    logs.add_argument("child", metavar="NAME", nargs="?", help="one child only")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument("-n", "--lines", type=int, default=20, help="of each child (default 20)")
    add("events", "print what happens from now on, one JSON object a line")
    down = add("down", "stop a running supervisor and everything below it; wait until it is gone")
    _add_target(down)
    down.add_argument("--force", action="store_true", help="kill everything at once")
    add("schema", "print the JSON Schema of topology files")
    add("version", "print the version")
    return parser, set(commands.choices)


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", help="its topology")


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    group = common.add_argument_group(_GLOBAL)
    group.add_argument(
        "--set",
        dest="sets",
        action="append",
        default=[],
        metavar="PATH=VALUE",
        help="change a value of the topology, such as children.context.replicas=2; repeatable",
    )
    group.add_argument("--port", type=int, metavar="N", help="the port of the ingress")
    group.add_argument("--namespace", metavar="NAME", help="instead of the topology's own")
    group.add_argument(
        "--state-dir",
        metavar="DIR",
        help="where run states are kept, a directory a namespace "
        "(default $UNDERSTUDY_STATE_DIR, else ~/.local/state/understudy)",
    )
    group.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        help="of the supervisor and its nodes (default info)",
    )
    return common
