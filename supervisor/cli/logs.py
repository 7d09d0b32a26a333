"""`supervise logs`: what children wrote. Reads the files, so it works without a supervisor too."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from supervisor.cli.arguments import Options
from supervisor.cli.main import EXIT_NOT_RUNNING
from supervisor.cli.targets import NoTargetError, choose
from supervisor.follow import Follower
from supervisor.layout import Layout, child_of_log, state_dir
from supervisor.logfiles import tail

Printer = Callable[[str], None]


def logs(options: Options, environ: Mapping[str, str]) -> int:
    """Print the last lines of one child or of all; with `follow`, go on until interrupted."""
    try:
        layout = _layout(options, environ)
        files = _files(layout, options.child)
    except NoTargetError as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_NOT_RUNNING
    width = max(len(child_of_log(file)) for file in files)
    offsets = {file: file.stat().st_size for file in files}
    printers: dict[Path, Printer] = {}
    for file in files:
        child = child_of_log(file)
        if options.as_json:
            printers[file] = partial(_print_json, child)
        else:
            printers[file] = partial(_print_after, f"{child:<{width}} | " if files[1:] else "")
    for file in files:
        for line in tail(file, lines=options.lines):
            printers[file](line)
    if options.follow:
        asyncio.run(_follow(printers, offsets))
    return 0


def _layout(options: Options, environ: Mapping[str, str]) -> Layout:
    if options.namespace is not None:
        return Layout(state_dir(options.namespace, environ, options.node), environ)
    return choose(options, environ)


def _files(layout: Layout, child: str | None) -> list[Path]:
    files = sorted(layout.logs.glob("*.log"))
    if child is not None:
        names = {child, f"{child}/0"}
        files = [file for file in files if child_of_log(file) in names]
    if not files:
        who = "nothing" if child is None else f"'{child}'"
        raise NoTargetError(f"{who} has a log in {layout.logs}")
    return files


async def _follow(printers: Mapping[Path, Printer], offsets: Mapping[Path, int]) -> None:
    def say(path: Path, line: bytes) -> None:
        printers[path](line.decode(errors="replace"))

    followers = [Follower(path, offsets[path], partial(say, path)) for path in printers]
    try:
        await asyncio.Event().wait()  # until interrupted
    finally:
        for follower in followers:
            follower.close()


def _print_json(child: str, line: str) -> None:
    print(json.dumps({"child": child, "line": line}, ensure_ascii=False), flush=True)


def _print_after(prefix: str, line: str) -> None:
    print(f"{prefix}{line}", flush=True)
