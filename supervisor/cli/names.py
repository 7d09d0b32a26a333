"""The names a Tab may complete, from files alone: no supervisor is asked, so it is fast."""

from __future__ import annotations

from collections.abc import Mapping

from supervisor.cli.arguments import Options
from supervisor.cli.targets import NoTargetError, choose, running
from supervisor.runstate import read_run_state


def names(options: Options, environ: Mapping[str, str]) -> int:
    """Print the namespaces that run, or the children of the one that is meant, one a line.

    Nothing to complete is no error: whoever reads this is a shell in the middle of a line.
    """
    if options.kind == "namespaces":
        found = list(dict.fromkeys(layout.namespace for layout in running(environ)))
    else:
        found = _children(options, environ)
    for name in found:
        print(name)
    return 0


def _children(options: Options, environ: Mapping[str, str]) -> list[str]:
    try:
        layout = choose(options, environ)
    except NoTargetError:
        return []
    state = read_run_state(layout.run)
    return [] if state is None else [child.name for child in state.children]
