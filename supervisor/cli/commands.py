"""Every command with its options, as argparse has them."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from supervisor.cli import manual
from supervisor.cli.examples import EXAMPLES

DESCRIPTION = """\
Bring up the actors that a topology file describes, and keep them up.

  supervise topologies/disagg.yaml         start it here; Ctrl-C stops everything
  supervise status                         what is running
  supervise top                            the same, live
  supervise logs -f router                 what the router says
  supervise down                           stop it from elsewhere
"""
_GLOBAL = "options of every command"
NAMES_COMMAND = "names"
"""What completion scripts ask for names; not shown."""
SHELLS = ("bash", "zsh", "fish")
MIN_INTERVAL_S = 0.1
LOG_LEVELS = ("debug", "info", "warning", "error")
ANY_PORT = 0


def make_parser() -> tuple[argparse.ArgumentParser, set[str]]:
    common = _common()
    parser = argparse.ArgumentParser(
        prog="supervise",
        description=DESCRIPTION,
        usage="supervise FILE [options]\n       supervise COMMAND [options]",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="supervise COMMAND --help tells more, with examples.",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", required=True, prog="supervise"
    )

    def add(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=text,
            description=manual.describe(name, text),
            epilog=manual.epilog(name, EXAMPLES[name]),
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _add_up(add("up", "start a topology and stay with it until it ends"))
    check = add("check", "say everything that is wrong with a topology; start nothing")
    check.add_argument("file", type=Path, metavar="FILE", help="the topology")
    _add_certificates(
        add("certificates", "make what nodes show each other's NATS and etcd, once for all nodes")
    )
    doctor = add("doctor", "check this host, and try the engine of a topology on it")
    doctor.add_argument("file", type=Path, metavar="FILE", nargs="?", help="the topology")
    _add_json(doctor)
    status = add("status", "show the tree of a running supervisor")
    _add_target(status)
    status.add_argument(
        "-v", "--verbose", action="store_true", help="the last lines of every child that failed"
    )
    _add_json(status)
    top = add("top", "show the tree live: rates, queues, memory, CPU, what happens")
    _add_target(top)
    top.add_argument(
        "--interval",
        dest="interval_s",
        type=_interval,
        default=1.0,
        metavar="SECONDS",
        help="between two looks (default 1)",
    )
    _add_json(top)
    restart = add("restart", "stop children and start them again; wait until they are ready")
    restart.add_argument("child", metavar="NAME", help="a child, or an entry with all its replicas")
    restart.add_argument(
        "--rolling",
        action="store_true",
        help="one at a time, each ready before the next is stopped",
    )
    scale = add("scale", "change the number of an entry's replicas; wait until it is so")
    scale.add_argument("child", metavar="NAME", help="the entry's name")
    scale.add_argument("replicas", type=_count, metavar="N", help="how many there shall be")
    drain = add("drain", "let one child finish its work, stop it and keep it stopped")
    drain.add_argument("child", metavar="NAME", help="a child as in `supervise status`")
    _add_log_level(add("log-level", "have children write down more, or less, while they run"))
    apply = add("apply", "change what runs to what a topology says, while serving")
    apply.add_argument("file", type=Path, metavar="FILE", help="the topology")
    apply.add_argument("--dry-run", action="store_true", help="only show what would change")
    apply.add_argument("-y", "--yes", action="store_true", help="do not ask")
    _add_json(apply)
    logs = add("logs", "print what children wrote")
    logs.add_argument("child", metavar="NAME", nargs="?", help="one child only")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    logs.add_argument(
        "-n", "--lines", type=_count, default=20, metavar="N", help="of each child (default 20)"
    )
    _add_json(logs)
    metrics = add("metrics", "print what every process counts, in Prometheus's text format")
    _add_target(metrics)
    _add_models(add("models", "list, add and remove the names that clients call models by"))
    _add_keys(add("keys", "make, list and revoke the API keys that an ingress asks for"))
    events = add("events", "print what has happened lately, or goes on happening")
    events.add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    _add_json(events)
    down = add("down", "stop a running supervisor and everything below it; wait until it is gone")
    _add_target(down)
    down.add_argument("--now", action="store_true", help="do not let work in progress finish")
    down.add_argument("--force", action="store_true", help="kill everything at once")
    _add_route(add("route", "explain where a prompt would go, and why; nothing is run"))
    add("ranks", "be a rank of a topology's workers, under your own mpirun or srun").add_argument(
        "file", type=Path, metavar="FILE", help="the topology"
    )
    chat = add("chat", "talk to a model in the terminal; no service is started or needed")
    _add_target(chat)
    add("schema", "print the JSON Schema of topology files")
    completion = add("completion", "print a completion script for a shell")
    completion.add_argument("shell", choices=SHELLS, metavar="SHELL", help="bash, zsh or fish")
    names = commands.add_parser(NAMES_COMMAND, parents=[common])
    names.add_argument("kind", choices=("namespaces", "children"))
    add("version", "print the version")
    return parser, set(commands.choices)


def _add_up(up: argparse.ArgumentParser) -> None:
    up.add_argument("file", type=Path, metavar="FILE", help="the topology")
    up.add_argument(
        "--web",
        type=_port,
        nargs="?",
        const=ANY_PORT,
        metavar="PORT",
        help="serve a page with the live tree on 127.0.0.1 (default: any free port; "
        "`supervise status` has the address)",
    )
    up.add_argument(
        "--without-workers",
        action="store_true",
        help="all but the workers, which run elsewhere (`supervise ranks`)",
    )


def _add_log_level(log_level: argparse.ArgumentParser) -> None:
    log_level.add_argument(
        "child", metavar="NAME", help="a child, an entry with all its replicas, an actor, or all"
    )
    log_level.add_argument("level", choices=LOG_LEVELS, help="the least that is written")


def _add_certificates(certificates: argparse.ArgumentParser) -> None:
    certificates.add_argument("file", type=Path, metavar="FILE", help="the topology")
    certificates.add_argument(
        "--into", type=Path, metavar="DIR", help="default: what the topology says"
    )
    certificates.add_argument(
        "--days", type=_positive, default=3650, metavar="N", help="how long they hold (3650)"
    )
    certificates.add_argument(
        "--renew", action="store_true", help="make the nodes' anew, by the same authority"
    )


def _add_route(route: argparse.ArgumentParser) -> None:
    route.add_argument("action", choices=("explain",), metavar="explain", help="the only one")
    source = route.add_mutually_exclusive_group()
    source.add_argument("--prompt", metavar="TEXT", help="the prompt (default: standard input)")
    source.add_argument(
        "--from", dest="prompt_file", type=Path, metavar="PATH", help="read the prompt from a file"
    )
    route.add_argument("--model", metavar="MODEL", help="default: the first one served")
    route.add_argument("--chat", action="store_true", help="as a user's message to the chat API")
    route.add_argument("--strategy", metavar="STRATEGY", help="instead of the router's own")
    route.add_argument("--session", metavar="TEXT", help="of this session")
    _add_json(route)


def _add_keys(keys: argparse.ArgumentParser) -> None:
    keys.add_argument(
        "action",
        choices=("create", "list", "revoke"),
        metavar="ACTION",
        help="create, list or revoke",
    )
    keys.add_argument("name", metavar="NAME", nargs="?", help="whose key it is")
    keys.add_argument(
        "--keys",
        dest="keys_file",
        type=Path,
        default=Path("keys.json"),
        metavar="FILE",
        help="the file of keys (default keys.json)",
    )
    for name, what in (
        ("requests-per-minute", "requests a minute"),
        ("tokens-per-minute", "tokens a minute, prompts and answers"),
        ("tokens-per-day", "tokens a day, prompts and answers"),
        ("concurrency", "requests at a time"),
    ):
        keys.add_argument(f"--{name}", type=_positive, metavar="N", help=f"at most N {what}")
    keys.add_argument("--models", metavar="A,B", default="", help="only these models")


def _add_models(models: argparse.ArgumentParser) -> None:
    models.add_argument(
        "action", choices=("list", "add", "remove"), metavar="ACTION", help="list, add or remove"
    )
    models.add_argument(
        "model_kind",
        choices=("chat", "completion"),
        metavar="KIND",
        nargs="?",
        help="chat or completion: the requests that may say the name",
    )
    models.add_argument("name", metavar="NAME", nargs="?", help="what clients say")
    models.add_argument("target", metavar="TARGET", nargs="?", help="the model it stands for")
    models.add_argument(
        "--replace", action="store_true", help="add a name that there is, for another model"
    )
    _add_json(models)


def _positive(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"{count} is not at least 1")
    return count


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", nargs="?", help="its topology")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", dest="as_json", action="store_true", help="for programs")


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not a port (0 to 65535)")
    return port


def _count(text: str) -> int:
    count = int(text)
    if count < 0:
        raise argparse.ArgumentTypeError(f"{count} is less than 0")
    return count


def _interval(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds >= MIN_INTERVAL_S):
        raise argparse.ArgumentTypeError(f"expected at least {MIN_INTERVAL_S} seconds")
    return seconds


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
        "--node",
        metavar="NAME",
        help="the node of the topology's `nodes` that this host is (default: as Slurm says, "
        "else the one called like this host)",
    )
    group.add_argument(
        "--state-dir",
        metavar="DIR",
        help="where run states are kept, a directory a namespace "
        "(default $UNDERSTUDY_STATE_DIR, else ~/.local/state/understudy)",
    )
    group.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        help="of the supervisor and its nodes (default $UNDERSTUDY_LOG_LEVEL, else info)",
    )
    return common
