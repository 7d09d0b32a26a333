"""The commands that need no supervisor: `check`, `schema`, `version`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import msgspec

from supervisor.cli.arguments import Options
from supervisor.cli.main import EXIT_USAGE
from supervisor.topology import Overrides, Reading, TopologyError, check_options, read, render
from supervisor.topology import schema as describe


def overrides_of(options: Options) -> Overrides:
    """What the command line changes in a topology."""
    return Overrides(
        sets=tuple(options.sets),
        port=options.port,
        namespace=options.namespace,
        without_workers=options.without_workers,
    )


def read_topology(options: Options, environ: Mapping[str, str]) -> Reading | None:
    """Read the file with its overrides; None when that printed what is wrong."""
    assert options.file is not None, "these commands have a file"
    try:
        return read(options.file, environ=environ, overrides=overrides_of(options))
    except TopologyError as error:
        print(render(error), file=sys.stderr)
        return None


def read_checked(options: Options, environ: Mapping[str, str]) -> Reading | None:
    """Like `read_topology`, with the actors' options checked too."""
    reading = read_topology(options, environ)
    if reading is None:
        return None
    try:
        asyncio.run(check_options(reading))
    except TopologyError as error:
        print(render(error), file=sys.stderr)
        return None
    return reading


def check(options: Options, environ: Mapping[str, str]) -> int:
    """Say all that is wrong with a topology, its actors' options included."""
    reading = read_checked(options, environ)
    if reading is None:
        return EXIT_USAGE
    count = sum(1 for _ in reading.topology.node_instances())
    nodes = "1 node" if count == 1 else f"{count} nodes"
    if machines := len(reading.topology.machines):
        # The file calls those nodes, and what runs on them is told apart.
        nodes = f"{count} processes over {machines} nodes"
    print(f"{options.file}: valid; namespace {reading.topology.namespace}, {nodes}")
    return 0


def schema(_options: Options, _environ: Mapping[str, str]) -> int:
    """Print the JSON Schema of topology files."""
    described = asyncio.run(describe(Path.cwd()))
    print(msgspec.json.format(msgspec.json.encode(described)).decode())
    return 0


def version(_options: Options, _environ: Mapping[str, str]) -> int:
    """Print the version."""
    print(f"understudy {metadata.version('understudy')}")
    return 0
