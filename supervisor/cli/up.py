"""`supervise up FILE`: from a file to a running tree, and to its end."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Mapping

from actors.runtime import logs
from supervisor.cli.arguments import Options
from supervisor.cli.files import read_topology
from supervisor.cli.main import EXIT_INTERRUPTED, EXIT_USAGE
from supervisor.console.paint import Paint, wants_colours
from supervisor.console.progress import Journal, Terminal
from supervisor.events import Event
from supervisor.layout import Layout, UnsafeDirectoryError
from supervisor.leftovers import end_leftovers
from supervisor.plan import make_plan
from supervisor.runstate import Lock, LockHeldError, read_run_state, this_process
from supervisor.services import ServerNotFoundError
from supervisor.supervisor import Supervisor
from supervisor.topology import Reading, TopologyError, check_options, render, state_dir
from supervisor.tree import SpecError

EXIT_FAILED = 1


def up(options: Options, environ: Mapping[str, str]) -> int:
    """Start a topology; return when it has ended. See `main` for the exit codes."""
    # On a terminal the console tells the rest.
    logs.configure(level=options.log_level or ("warning" if sys.stdout.isatty() else "info"))
    reading = read_topology(options, environ)
    if reading is None:
        return EXIT_USAGE
    try:
        return asyncio.run(_run(reading, options, environ))
    except TopologyError as error:
        print(render(error), file=sys.stderr)
        return EXIT_USAGE
    except (LockHeldError, ServerNotFoundError, UnsafeDirectoryError, SpecError, OSError) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_FAILED


async def _run(reading: Reading, options: Options, environ: Mapping[str, str]) -> int:
    signals = _Signals()
    topology = reading.topology
    layout = Layout(state_dir(topology.namespace, environ), environ)
    layout.create()
    holder = this_process(topology.namespace, topology.path)
    lock = Lock(layout.lock, holder)
    try:
        await _end_leftovers(layout)
        await check_options(reading)
        plan = make_plan(topology, layout, environ, log_level=options.log_level or "info")
        supervisor = Supervisor(plan, layout, holder, listeners=(_console(environ),))
        signals.direct_to(supervisor.stop)
        return (await supervisor.run()).exit_code
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    finally:
        lock.release()


class _Signals:
    """SIGINT, SIGTERM and SIGHUP: the first asks everything to stop, the next one kills.

    Before there is a supervisor to stop, a signal cancels the task that prepares it.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._received = 0
        self._stop: Callable[..., None] | None = None
        self._preparing = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
                loop.add_signal_handler(number, self._signalled)

    def direct_to(self, stop: Callable[..., None]) -> None:
        """From now on signals are for this."""
        self._stop = stop

    def _signalled(self) -> None:
        self._received += 1
        if self._stop is not None:
            self._stop(force=self._received > 1)
        elif self._preparing is not None:
            self._preparing.cancel()


async def _end_leftovers(layout: Layout) -> None:
    """End what a supervisor that was killed has left; we hold its lock now."""
    last = read_run_state(layout.run)
    if last is None:
        return
    ended = await end_leftovers(last.children)
    if ended:
        names = ", ".join(child.name for child in ended)
        print(
            f"supervise: ended what supervisor {last.supervisor.pid} had left running: {names}",
            file=sys.stderr,
        )
    layout.run.unlink(missing_ok=True)


def _console(environ: Mapping[str, str]) -> Callable[[Event], None]:
    if not sys.stdout.isatty():
        return Journal()
    return Terminal(sys.stdout, Paint(colours=wants_colours(sys.stdout, environ)))
