"""`supervise certificates`: make what NATS and etcd of a topology on several nodes show."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from supervisor.certificates import make
from supervisor.cli.arguments import Options
from supervisor.cli.files import read_topology
from supervisor.cli.main import EXIT_USAGE
from supervisor.topology.model import CERTIFICATES_OFF

EXIT_FAILED = 1
BESIDE = "certificates"
"""The directory, beside a topology that names none."""


def certificates(options: Options, environ: Mapping[str, str]) -> int:
    """Make those that are not there yet; the exit code."""
    reading = read_topology(options, environ)
    if reading is None:
        return EXIT_USAGE
    topology = reading.topology
    if not topology.machines:
        print(f"supervise: {options.file}: lists no nodes, and needs none", file=sys.stderr)
        return EXIT_USAGE
    named = topology.certificates
    beside = named is None or named == CERTIFICATES_OFF
    directory = options.into or (topology.base_dir / BESIDE if beside else Path(named or ""))
    try:
        written = make(directory, topology.machines, days=options.days, renew=options.renew)
    except (OSError, ValueError) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_FAILED
    for file in written:
        print(f"wrote {file} and {file.with_suffix('.key').name}")
    if not written:
        print(f"{directory} has all; --renew makes the nodes' anew")
    print(
        "copy to each node, same place: ca.pem, NODE.pem, NODE.key; "
        f"keep {directory / 'ca.key'} to yourself"
    )
    return 0
