"""A rank that follows: it sleeps until its leader wants something computed or moved."""

from __future__ import annotations

import contextlib
import os
import threading
from array import array
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import msgspec
import structlog

from actors.engines import world
from actors.engines.base import EngineFailed
from actors.engines.transformers.handoffs import FETCHERS
from actors.engines.transformers.parallel import orders
from actors.engines.transformers.parallel.line import Address, Closed, Line, join
from actors.kv.transfer import Exchange, Part, TransferError

EXIT_FAILED = 70
_log = structlog.get_logger("rank")


def follow(leader: int, size: int, leader_pid: int = 0, *, left_behind: int = EXIT_FAILED) -> int:
    """Be a rank of the server whose leader is that rank of the MPI program; the exit code.
    `leader_pid`, on this host: its death is noticed before it has called, too.
    `left_behind`: the exit code of a rank whose leader has gone.

    Ends the process at once, wherever it is, when the leader has gone: it may be in a sum that
    will never be complete.
    """
    # What takes longest, while the leader does the same.
    import actors.engines.transformers.model  # noqa: F401, PLC0415 - torch

    rank = world.place()[0] - leader
    called = world.await_call(leader, size, leader_pid)
    if called is None:
        return 0
    call, group = called
    address = msgspec.msgpack.decode(call, type=Address)
    try:
        stream = join(address, rank)
    except OSError as error:
        _log.error("leader_unreachable", host=address.host, error=str(error))
        return EXIT_FAILED
    own_host = stream.getsockname()[0]
    line: Line[orders.Order, orders.Answer] = Line(stream, orders.Order)
    inbox: SimpleQueue[orders.Order] = SimpleQueue()
    threading.Thread(
        target=_listen, args=(line, inbox, left_behind), name="orders", daemon=True
    ).start()
    first = inbox.get()
    if isinstance(first, orders.Stop):
        return 0
    assert isinstance(first, orders.Load), "the first order is to load"
    try:
        _Share(line, first, group, own_host).serve(inbox)
    except EngineFailed as error:
        return _break_down(line, str(error))
    except Exception as error:  # noqa: BLE001 - whatever broke, the leader must learn of it
        _log.exception("rank_broke")
        return _break_down(line, f"{type(error).__name__}: {error}")
    return 0


def _listen(
    line: Line[orders.Order, orders.Answer], inbox: SimpleQueue[orders.Order], left_behind: int
) -> None:
    try:
        while True:
            order = line.hear()
            inbox.put(order)
            if isinstance(order, orders.Stop):
                return
    except Closed as error:
        _log.warning("leader_gone", error=str(error))
        os._exit(left_behind)


def _break_down(line: Line[orders.Order, orders.Answer], error: str) -> int:
    _log.error("rank_failed", reason=error)
    with contextlib.suppress(Closed):
        line.say(orders.Broken(error))
    return EXIT_FAILED


class _Share:
    """This rank's share of the model and of the KV, and what is done with it."""

    def __init__(
        self,
        line: Line[orders.Order, orders.Answer],
        order: orders.Load,
        group: object,
        own_host: str,
    ) -> None:
        """`own_host`: the address by which this rank reaches its leader. Others fetch KV from it
        there: the leader's `transfer_host` may be another host's."""
        from actors.engines.transformers.model import load_share  # noqa: PLC0415 - torch

        part = Part(order.rank, order.size)
        options = order.options
        self._line = line
        self._loaded = load_share(options, part, group, order.rendezvous)
        self._exchange = Exchange(
            self._loaded.memory,
            self._loaded.geometry,
            options.transport,
            own_host,
            part=part,
        )
        self._fetchers = ThreadPoolExecutor(FETCHERS, thread_name_prefix="kv-fetch")
        line.say(orders.Loaded(self._loaded.blocks))

    def serve(self, inbox: SimpleQueue[orders.Order]) -> None:
        from actors.engines.transformers.work import Work  # noqa: PLC0415 - torch

        try:
            while True:
                match inbox.get():
                    case orders.Compute(works):
                        self._loaded.runner.run(
                            [
                                Work(array("I", tokens), start, blocks)
                                for tokens, start, blocks in works
                            ]
                        )
                    case orders.Offer(number, blocks):
                        self._offer(number, blocks)
                    case orders.Withdraw(offer):
                        self._exchange.withdraw_share(offer)
                    case orders.Fetch() as order:
                        self._fetchers.submit(self._fetch, order)
                    case orders.Stop():
                        return
                    case orders.Load():
                        raise AssertionError("a share is loaded once")
        finally:
            self._exchange.close()
            self._fetchers.shutdown()
            self._loaded.memory.close()

    def _offer(self, number: int, blocks: tuple[int, ...]) -> None:
        try:
            self._line.say(orders.Offered(number, self._exchange.offer_share(blocks)))
        except TransferError as error:
            self._line.say(orders.Failed(number, str(error)))

    def _fetch(self, order: orders.Fetch) -> None:
        try:
            self._exchange.fetch_share(order.ticket, order.skip, order.blocks)
            self._line.say(orders.Fetched(order.number))
        except Closed:
            return
        except TransferError as error:
            self._line.say(orders.Failed(order.number, str(error)))
        except Exception as error:  # noqa: BLE001 - one broken fetch ends one request, not all
            _log.exception("fetch_broke")
            self._line.say(orders.Failed(order.number, f"{type(error).__name__}: {error}"))
