"""`supervise up FILE`: from a file to a running tree, and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import urlsplit

from msgspec.structs import replace

from actors.runtime import logs
from supervisor.adoption import Adoption, choose
from supervisor.change.source import Planner, Source
from supervisor.cli.arguments import Options
from supervisor.cli.files import overrides_of, read_topology
from supervisor.cli.main import EXIT_INTERRUPTED, EXIT_USAGE
from supervisor.console.paint import Paint, wants_colours
from supervisor.console.progress import Journal, Terminal
from supervisor.etcd_login import LoginNotSetError
from supervisor.events import Event
from supervisor.host import check_host, this_host, wants_gpus
from supervisor.launchers.llmapi import end_program, for_one_life, is_inside
from supervisor.layout import Layout, UnsafeDirectoryError, state_dir
from supervisor.leftovers import end_leftovers, find_unrecorded
from supervisor.notify import Notifier, without_manager
from supervisor.plan import Plan, make_plan
from supervisor.recipe import identities
from supervisor.runstate import (
    Lock,
    LockHeldError,
    RunState,
    read_run_state,
    still_runs,
    this_process,
)
from supervisor.services import HOST, ServerNotFoundError, address_towards
from supervisor.shown import CertificatesError
from supervisor.supervisor import Supervisor
from supervisor.topology import (
    Here,
    NodeError,
    Overrides,
    Reading,
    Topology,
    TopologyError,
    check_options,
    choose_node,
    read_text,
    render,
)
from supervisor.tree import SpecError

EXIT_FAILED = 1


def up(options: Options, environ: Mapping[str, str]) -> int:
    """Start a topology; return when it has ended. See `main` for the exit codes."""
    code = _up(options, environ)
    if code and is_inside(environ):
        print("supervise: ending the ranks too, which wait for a worker", file=sys.stderr)
        end_program()
    return code


def _up(options: Options, environ: Mapping[str, str]) -> int:
    # On a terminal the console tells the rest.
    logs.configure(level=options.log_level or ("warning" if sys.stdout.isatty() else "info"))
    reading = read_topology(options, environ)
    if reading is None:
        return EXIT_USAGE
    try:
        overrides = _here(reading.topology, overrides_of(options), options, environ)
        reading = read_text(
            reading.document.text, reading.topology.path, environ=environ, overrides=overrides
        )
        if is_inside(environ):
            reading = replace(reading, topology=for_one_life(reading.topology, environ))
        return asyncio.run(_run(reading, overrides, options, environ))
    except NodeError as error:
        print(f"supervise: {options.file}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except TopologyError as error:
        print(render(error), file=sys.stderr)
        return EXIT_USAGE
    except (
        LockHeldError,
        ServerNotFoundError,
        LoginNotSetError,
        CertificatesError,
        UnsafeDirectoryError,
        SpecError,
        OSError,
    ) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_FAILED


async def _run(
    reading: Reading, overrides: Overrides, options: Options, environ: Mapping[str, str]
) -> int:
    signals = _Signals()
    topology = reading.topology
    here = topology.here
    layout = Layout(state_dir(topology.namespace, environ, here), environ)
    layout.create()
    holder = this_process(topology.namespace, topology.path, here)
    lock = Lock(layout.lock, holder)
    notifier = Notifier(environ)
    notifier.open()
    try:
        host = this_host(environ, with_gpus=wants_gpus(reading))
        check_host(reading, host)
        await check_options(reading)
        own, log_level = without_manager(environ), options.log_level or "info"
        last = read_run_state(layout.run)
        plan = make_plan(topology, layout, own, log_level=log_level, last=last)
        planner = Planner(_source(reading, overrides), layout, own, host, log_level=log_level)
        listeners = (_console(environ), notifier)
        adopted = await _adopt(plan, layout, last)
        supervisor = Supervisor(
            plan, layout, holder, listeners=listeners, planner=planner, adopted=adopted
        )
        async with _page(supervisor, options.web):
            signals.direct_to(supervisor.stop, supervisor.reload)
            return (await supervisor.run()).exit_code
    except asyncio.CancelledError:
        return EXIT_INTERRUPTED
    finally:
        notifier.close()
        lock.release()


@contextlib.asynccontextmanager
async def _page(supervisor: Supervisor, port: int | None) -> AsyncIterator[None]:
    """Serve the page as long as the supervisor runs; not at all when no port was given."""
    if port is None:
        yield
        return
    from supervisor.web import Page  # noqa: PLC0415 - an HTTP server only for those who want one

    async with Page(supervisor, port) as page:
        supervisor.web = page.url
        yield


class _Signals:
    """SIGINT and SIGTERM: the first asks everything to stop, the next one kills. SIGHUP applies
    the file again; it stops everything when it says that our terminal has gone.

    Before there is a supervisor to stop, SIGINT and SIGTERM cancel the task that prepares it.
    """

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._received = 0
        self._stop: Callable[..., None] | None = None
        self._preparing = asyncio.current_task()
        self._reload: Callable[[], None] | None = None
        self._had_terminal = _has_terminal()
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, self._signalled)
        self._outlives_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN  # nohup
        loop.add_signal_handler(signal.SIGHUP, self._hung_up)

    def direct_to(self, stop: Callable[..., None], reload: Callable[[], None]) -> None:
        """From now on signals are for these."""
        self._stop, self._reload = stop, reload

    def _hung_up(self) -> None:
        if self._had_terminal and not _has_terminal():
            if not self._outlives_terminal:
                self._signalled()
        elif self._reload is not None:
            self._reload()

    def _signalled(self) -> None:
        self._received += 1
        if self._stop is not None:
            self._stop(force=self._received > 1)
        elif self._preparing is not None:
            self._preparing.cancel()


async def _adopt(plan: Plan, layout: Layout, last: RunState | None) -> Adoption:
    """Choose what is taken over from a supervisor that was killed, and end the rest of what it
    has left; we hold its lock now."""
    adopted = choose(identities(plan.tree), last, still_runs)
    before = "an earlier supervisor" if last is None else f"supervisor {last.supervisor.pid}"
    if adopted.taken:
        names = ", ".join(adopted.taken)
        print(f"supervise: taking over from {before}: {names}", file=sys.stderr)
    recorded = {os.getpid(), *(child.pid for child in (last.children if last else ()))}
    unrecorded = find_unrecorded(layout.state, recorded)
    ended = await end_leftovers([*adopted.refused, *unrecorded])
    if ended:
        names = ", ".join(child.name for child in ended)
        print(f"supervise: ended what {before} had left running: {names}", file=sys.stderr)
    return adopted


def _has_terminal() -> bool:
    try:
        return os.isatty(sys.stdin.fileno())
    except (OSError, ValueError):
        return False  # closed


def _here(
    topology: Topology, overrides: Overrides, options: Options, environ: Mapping[str, str]
) -> Overrides:
    """With the part of the topology that is for this host. Raises NodeError."""
    node = choose_node(list(topology.machines), options.node, environ, socket.gethostname())
    if node is None:
        return overrides
    address = topology.machines[node] or _own_address(topology, node)
    return replace(overrides, here=Here(node=node, address=address))


def _own_address(topology: Topology, node: str) -> str:
    """By which address others reach this host, as the file does not say: that from which it reaches
    NATS, which all of them use."""
    service = topology.nats
    if service.node is not None:
        host, port = topology.machines[service.node] or "", service.port or 0
    elif service.urls:
        parts = urlsplit(service.urls[0])
        host, port = parts.hostname or "", parts.port or 0
    else:
        return HOST  # a topology of one node, and all of it on loopback
    try:
        return address_towards(host, port)
    except OSError as error:
        raise NodeError(
            f"the address of '{node}' is not known: nodes says none, and there is no way to NATS "
            f"({host}): {error}"
        ) from None


def _source(reading: Reading, overrides: Overrides) -> Source:
    path = reading.topology.path.absolute()
    return Source(path=path, text=reading.document.text, overrides=overrides)


def _console(environ: Mapping[str, str]) -> Callable[[Event], None]:
    if not sys.stdout.isatty():
        return Journal()
    return Terminal(sys.stdout, Paint(colours=wants_colours(sys.stdout, environ)))
