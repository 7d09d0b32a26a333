"""The commands that change what runs: `scale`, `drain`, `log-level`, `apply`."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import msgspec

from supervisor.calls import Accepted, Apply, DrainChild, Proposal, Scale, SetLogLevel
from supervisor.cli.arguments import Options
from supervisor.cli.ask import ask, refused
from supervisor.cli.files import read_topology
from supervisor.cli.main import EXIT_USAGE
from supervisor.console.paint import Paint, wants_colours

EXIT_DECLINED = 1
_COLOURS = {"+": "green", "-": "red", "~": "yellow", ">": "yellow"}


def scale(options: Options, environ: Mapping[str, str]) -> int:
    """Have so many replicas of an entry; return when it is so."""
    assert options.child is not None, "the parser requires it"
    assert options.replicas is not None, "the parser requires it"
    call = Scale(name=options.child, replicas=options.replicas)
    answer = ask(options, environ, call, timeout_s=None)
    if not isinstance(answer, Accepted):
        return refused(answer)
    plural = "" if options.replicas == 1 else "s"
    print(f"{options.child} has {options.replicas} replica{plural}")
    return 0


def drain(options: Options, environ: Mapping[str, str]) -> int:
    """Drain and stop a child, and keep it stopped; return when it has ended."""
    assert options.child is not None, "the parser requires it"
    answer = ask(options, environ, DrainChild(id=options.child), timeout_s=None)
    if not isinstance(answer, Accepted):
        return refused(answer)
    print(f"{options.child} is stopped; to bring it back: supervise restart {options.child}")
    return 0


def log_level(options: Options, environ: Mapping[str, str]) -> int:
    """Have processes write down more, or less, while they run."""
    assert options.child is not None, "the parser requires it"
    assert options.level is not None, "the parser requires it"
    answer = ask(options, environ, SetLogLevel(id=options.child, level=options.level))
    if not isinstance(answer, Accepted):
        return refused(answer)
    print(f"{options.child} logs from {options.level} on, until it is restarted")
    return 0


def apply(options: Options, environ: Mapping[str, str]) -> int:
    """Show what a file would change, ask, and have the running supervisor change it."""
    reading = read_topology(options, environ)
    if reading is None:
        return EXIT_USAGE
    # The text that is shown is the text that is applied, whatever is written to the file meanwhile.
    call = Apply(
        path=str(reading.topology.path.absolute()),
        text=reading.document.text,
        sets=tuple(options.sets),
        port=options.port,
        namespace=options.namespace,
        dry_run=True,
    )
    proposal = ask(options, environ, call, timeout_s=None)
    if not isinstance(proposal, Proposal):
        return refused(proposal)
    _show(proposal, options, environ)
    if options.dry_run or not proposal.changes:
        return 0
    if not options.yes and sys.stdin.isatty() and not _agreed():
        return EXIT_DECLINED
    applied = ask(options, environ, msgspec.structs.replace(call, dry_run=False), timeout_s=None)
    if not isinstance(applied, Accepted):
        return refused(applied)
    if not options.as_json:
        print("applied")
    return 0


def _show(proposal: Proposal, options: Options, environ: Mapping[str, str]) -> None:
    if options.as_json:
        print(msgspec.json.format(msgspec.json.encode(proposal)).decode())
        return
    if not proposal.changes:
        print("nothing to change")
    paint = Paint(colours=wants_colours(sys.stdout, environ))
    for line in proposal.lines:
        colour = _COLOURS.get(line[:1])
        print(line if colour is None else paint(colour, line))


def _agreed() -> bool:
    try:
        return input("apply this? [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        return False
