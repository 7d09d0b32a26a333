"""The entry point of a node's process: `python -m actors.runtime.process SPEC.json`.

Started by a supervisor, or by hand with the same file. Exit codes follow sysexits.h:
0 asked to stop, 69 NATS or etcd out of reach, 70 an actor failed, 73 the name is taken,
75 the name was lost to a successor, 77 NATS or etcd does not let it in, 78 the specification is
wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import os
import platform
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from actors.runtime import logs, tasks
from actors.runtime.actor import Actor, handlers_of
from actors.runtime.cell import Cell, decoder_for
from actors.runtime.errors import (
    UNREADABLE,
    ActorError,
    ActorFailed,
    NameLost,
    NameTaken,
    PlaneRefused,
    PlaneUnavailable,
)
from actors.runtime.link import (
    Beat,
    DrainOrder,
    Failing,
    Hello,
    Link,
    LogLevel,
    Measure,
    Prepared,
    Promote,
    Rehearsed,
    measured,
)
from actors.runtime.metrics.vitals import build_version
from actors.runtime.node import Hosted, Node
from actors.runtime.pids import name_this_process, process_started
from actors.runtime.registry.base import Entry
from actors.runtime.registry.etcd import EtcdRegistry, EtcdSettings
from actors.runtime.tracing import TracingSettings, is_wanted
from actors.runtime.transport.nats import NatsSettings, NatsTransport

if TYPE_CHECKING:
    from actors.runtime.tracing.tracer import Tracer

EXIT_UNAVAILABLE = 69
EXIT_FAILED = 70
EXIT_NAME_TAKEN = 73
EXIT_NAME_LOST = 75
EXIT_REFUSED = 77
EXIT_CONFIGURATION = 78
GC_THRESHOLDS = (50_000, 20, 20)
RECONNECT_S = 0.2
"""A supervisor that comes back is found within this time."""

log = logs.get_logger("node")


class ActorSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One actor of a node."""

    actor: str
    """`package.module:Class`."""
    role: str
    instance: int
    options: msgspec.Raw = msgspec.Raw(b"{}")
    """JSON, read as the class's Options."""
    above: int = 0
    """The incarnation of the last life known to be over."""


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a node's process needs to know."""

    name: str
    namespace: str
    base_dir: str
    nats: NatsSettings
    etcd: EtcdSettings
    actors: tuple[ActorSpec, ...]
    run: int = 0
    host: str | None = None
    """What the registry calls the machine; None: its host name. Names that are not unique, as of
    containers, would have the living taken for dead."""
    host_silence_s: float | None = None
    """After what silence the actors of another machine are no longer counted on; None: when they
    leave the registry."""
    link: str | None = None
    """The supervisor's socket; None runs without one."""
    orphan_timeout_s: float = 60.0
    """Without a supervisor for this long the node drains and leaves."""
    heartbeat_s: float = 0.5
    standby: bool = False
    """Load, then wait for the supervisor's `Promote` before taking the names."""
    log_level: str = "info"
    tracing: TracingSettings | None = None
    """None: as the OTEL_* variables say."""


class SpecError(ActorError):
    """The specification names something that cannot be imported or does not fit."""


def load(spec: ActorSpec) -> Hosted:
    """Import an actor's class and read its options. Raises SpecError."""
    module_name, _, class_name = spec.actor.partition(":")
    try:
        cls = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError) as error:
        raise SpecError(f"{spec.actor}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Actor)):
        raise SpecError(f"{spec.actor} is not an Actor class")
    try:
        options = msgspec.json.decode(spec.options, type=cls.Options)
    except UNREADABLE as error:
        raise SpecError(f"options of {spec.role}/{spec.instance}: {error}") from error
    return Hosted(
        actor=cls, role=spec.role, instance=spec.instance, options=options, above=spec.above
    )


def prepare(actor: type[Actor]) -> None:
    """Do beforehand what every node with this actor does once on its way up, as far as nobody can
    see it: a zygote does so for all that it forks. What is found out is kept by those who do it."""
    import uvloop  # noqa: F401, PLC0415 - as in `run`

    decoder_for(kind for item in handlers_of(actor) for kind in item.types)
    for kind in (NodeSpec, Entry, actor.Options):
        msgspec.json.Decoder(kind)
    build_version()
    platform.python_version()


class Process:
    """Runs one node, and keeps its supervisor informed."""

    def __init__(self, spec: NodeSpec, on_ready: Callable[[], None] | None = None) -> None:
        """`on_ready`: called once, when everything is loaded and serves."""
        self._spec = spec
        self._on_ready = on_ready or (lambda: None)
        self._node = Node(
            spec.name,
            spec.namespace,
            NatsTransport(spec.nats, spec.name),
            EtcdRegistry(spec.etcd, spec.namespace, host=spec.host),
            host=spec.host,
            host_silence_s=spec.host_silence_s,
            base_dir=Path(spec.base_dir),
        )
        self._node.verbose = spec.log_level == "debug"
        self._stop = asyncio.Event()
        self._drain = asyncio.Event()
        self._ready = False
        self._rehearsed = False
        self._name = spec.name
        self._run = spec.run
        self._promotion: asyncio.Future[Promote] = asyncio.Future()
        self._link: Link | None = None

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        supervised = asyncio.create_task(self._stay_linked(), name="link")
        try:
            return await self._serve()
        except PlaneRefused as error:
            return self._give_up(EXIT_REFUSED, error)
        except PlaneUnavailable as error:
            return self._give_up(EXIT_UNAVAILABLE, error)
        except NameTaken as error:
            return self._give_up(EXIT_NAME_TAKEN, error)
        except NameLost as error:
            return self._give_up(EXIT_NAME_LOST, error)
        except SpecError as error:
            return self._give_up(EXIT_CONFIGURATION, error)
        except ActorFailed as error:
            log.exception("actor_failed", actor=error.name, exc_info=error.cause)
            return self._give_up(EXIT_FAILED, error)
        except Exception as error:
            log.exception("start_failed")
            return self._give_up(EXIT_FAILED, error)
        finally:
            await self._node.stop()
            if self._node.tracer is not None:
                await self._node.tracer.close()
            await tasks.end(supervised)

    async def _serve(self) -> int:
        self._node.tracer = self._make_tracer()
        hosted = [load(item) for item in self._spec.actors]
        stop = asyncio.create_task(self._stop.wait(), name="stop")
        bring_up = self._stand_by(hosted) if self._spec.standby else self._node.start(hosted)
        starting = asyncio.create_task(bring_up, name="start")
        drain = asyncio.create_task(self._drain.wait(), name="drain")
        waiting = [stop, starting, drain]
        try:
            # An understudy has nothing in hand that it could finish.
            leave = [stop, drain] if self._spec.standby else [stop]
            await asyncio.wait([starting, *leave], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return 0
            await starting
            self._ready = True
            self._report_ready()
            self._on_ready()
            failed = asyncio.create_task(self._node.wait(), name="wait")
            waiting.append(failed)
            await asyncio.wait([failed, stop, drain], return_when=asyncio.FIRST_COMPLETED)
            if failed.done():
                await failed
            if not stop.done():
                draining = asyncio.create_task(self._node.drain(), name="draining")
                waiting.append(draining)
                await asyncio.wait([draining, failed, stop], return_when=asyncio.FIRST_COMPLETED)
            return 0
        finally:
            await tasks.end(*waiting)

    def _make_tracer(self) -> Tracer | None:
        spec = self._spec
        if not is_wanted(spec.tracing, os.environ):
            return None
        try:
            from actors.runtime.tracing.tracer import Tracer  # noqa: PLC0415 - only where wanted
        except ImportError as error:
            text = f"tracing needs OpenTelemetry, pip install 'understudy[tracing]' ({error})"
            if spec.tracing is not None:
                raise SpecError(text) from error
            # Variables of the whole host must not keep a service down.
            log.warning("not_traced", why=text)
            return None
        return Tracer(
            spec.tracing, node=spec.name, namespace=spec.namespace, metrics=self._node.metrics
        )

    async def _stand_by(self, hosted: Sequence[Hosted]) -> None:
        """Everything that takes long comes before the promotion."""
        await self._node.connect()
        actors = [await self._node.rehearse(item) for item in hosted]
        self._rehearsed = True
        self._report_ready()
        failing = asyncio.create_task(self._node.wait(), name="wait")
        try:
            waiting: list[asyncio.Future[Any]] = [self._promotion, failing]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                await failing
        finally:
            await tasks.end(failing)
        promotion = self._promotion.result()
        for actor, item in zip(actors, hosted, strict=True):
            instance = item.instance if promotion.instance is None else promotion.instance
            above = promotion.above.get(f"{item.role}/{instance}", 0)
            part = msgspec.structs.replace(item, instance=instance, above=above)
            await self._node.take_over(actor, part)

    def _promote(self, promotion: Promote) -> None:
        self._run = promotion.run
        if promotion.log is not None:
            logs.redirect(Path(promotion.log))
        if promotion.node is not None:
            self._name = promotion.node
            self._node.rename(promotion.node)
            name_this_process(promotion.node)
            logs.configure(level=self._spec.log_level, node=promotion.node)
        self._promotion.set_result(promotion)

    def _give_up(self, code: int, error: BaseException) -> int:
        reason = str(error) or type(error).__name__
        log.error("node_failed", reason=reason, exit_code=code)
        if self._link is not None:
            self._link.say(Failing(reason))
        return code

    # -- the supervisor ------------------------------------------------------------------------

    async def _stay_linked(self) -> None:
        if self._spec.link is None:
            return
        path = Path(self._spec.link)
        loop = asyncio.get_running_loop()
        orphaned_at = loop.time() + self._spec.orphan_timeout_s
        while True:
            try:
                async with asyncio.timeout_at(orphaned_at):
                    link = await _connect(path)
            except TimeoutError:
                log.warning("orphaned", after_s=self._spec.orphan_timeout_s)
                self._drain.set()
                return
            linked_at = loop.time()
            try:
                await self._converse(link)
            finally:
                self._link = None
                await link.close()
            if loop.time() - linked_at >= RECONNECT_S:
                # Not where we are turned away at once: nobody looks after us there.
                orphaned_at = loop.time() + self._spec.orphan_timeout_s
            # A socket that takes us and hangs up at once must not become a busy loop.
            await asyncio.sleep(RECONNECT_S)

    async def _converse(self, link: Link) -> None:
        pid = os.getpid()
        link.say(Hello(self._name, pid, process_started(pid), self._run))
        self._link = link
        self._report_ready()
        beating = asyncio.create_task(self._beat(link), name="heartbeat")
        try:
            while True:
                try:
                    note = await link.hear()
                except UNREADABLE as error:
                    # A supervisor of another release says something new: not for us.
                    log.warning("note_unreadable", error=str(error))
                    continue
                if note is None:
                    return
                match note:
                    case DrainOrder():
                        self._drain.set()
                    case Measure(number=number):
                        for part in measured(number, self._node.metrics.collect()):
                            link.say(part)
                    case LogLevel(level=level, actor=actor):
                        logs.set_level(level, actor)
                        self._node.verbose = level == "debug" or (
                            self._node.verbose and actor is not None
                        )
                        log.info("log_level_set", to=level, of=actor or self._name)
                    case Promote() if self._spec.standby and not self._promotion.done():
                        self._promote(note)
                    case _:
                        log.warning("link_note_ignored", note=type(note).__name__)
        finally:
            await tasks.end(beating)

    def _report_ready(self) -> None:
        if self._link is None:
            return
        if self._ready:
            entries = [cell.entry for cell in self._node.cells]
            self._link.say(
                Prepared(
                    {entry.name: entry.incarnation for entry in entries},
                    {entry.name: entry.meta for entry in entries},
                )
            )
        elif self._rehearsed:
            self._link.say(Rehearsed())

    async def _beat(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + self._spec.heartbeat_s
            await asyncio.sleep(self._spec.heartbeat_s)
            lag_s = max(0.0, loop.time() - due)
            self._node.vitals.loop_was_late(lag_s)
            try:
                link.say(_beat(self._node.cells, self._node.silent_hosts, lag_s=lag_s))
            except _BadReport as bad:
                # Without a beat it would be killed as hung, and nobody would learn why.
                self._node.fail(bad.actor, bad.error)
                return


class _BadReport(Exception):
    """An actor cannot say how it is."""

    def __init__(self, actor: Actor, error: Exception) -> None:
        super().__init__(actor, error)
        self.actor = actor
        self.error = error


def _beat(cells: Sequence[Cell], silent: frozenset[str], *, lag_s: float) -> Beat:
    beat = Beat(progress=0, busy=False, lag_s=lag_s, silent_hosts=tuple(sorted(silent)))
    for cell in cells:
        try:
            beat = _with_report(beat, cell)
        except Exception as error:
            # Whatever it is: it comes from an actor, which may be the user's own.
            raise _BadReport(cell.actor, error) from error
    return beat


def _with_report(beat: Beat, cell: Cell) -> Beat:
    """What one more actor says of itself added."""
    name, actor = cell.entry.name, cell.actor
    progress, busy = actor.progress()
    troubles = actor.troubles()
    return msgspec.structs.replace(
        beat,
        progress=beat.progress + progress,
        busy=beat.busy or busy,
        patience_s=max(beat.patience_s, actor.patience_s()),
        gauges={**beat.gauges, name: {"mailbox": float(len(cell.mailbox)), **actor.gauges()}},
        troubles={**beat.troubles, name: troubles} if troubles else beat.troubles,
    )


def spare_the_collector() -> None:
    """What is here now stays: never look at it again. And look less often at what comes, of which
    hardly anything is in cycles: by its defaults the collector takes a tenth of a busy ingress."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


async def _connect(path: Path) -> Link:
    while True:
        with contextlib.suppress(OSError):
            return await Link.connect(path)
        await asyncio.sleep(RECONNECT_S)


def main(arguments: list[str] | None = None) -> int:
    """Run the node that the file describes; return the exit code."""
    argv = sys.argv[1:] if arguments is None else arguments
    if len(argv) != 1 or argv[0] in {"-h", "--help"}:
        print(__doc__, file=sys.stderr)
        return 0 if argv and argv[0] in {"-h", "--help"} else EXIT_CONFIGURATION
    try:
        spec = msgspec.json.decode(Path(argv[0]).read_bytes(), type=NodeSpec)
    except (OSError, *UNREADABLE) as error:
        print(f"{argv[0]}: {error}", file=sys.stderr)
        return EXIT_CONFIGURATION
    logs.configure(level=spec.log_level, node=spec.name)
    # A user's own actors live beside the topology file, as modules live beside a script.
    sys.path.insert(0, spec.base_dir)
    return run(spec)


def run(spec: NodeSpec) -> int:
    """Run one node on a fresh uvloop until it ends."""
    import uvloop  # noqa: PLC0415 - imported by the process that runs a loop, not by its readers

    name_this_process(spec.name)
    # One text at a time gains nothing from the tokenisers' threads, and pays for waking one.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

    async def serve() -> int:
        return await Process(spec, on_ready=spare_the_collector).run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve())


if __name__ == "__main__":
    sys.exit(main())
