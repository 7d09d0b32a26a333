"""The leader's side: the other ranks of its engine, ordered about over their lines."""

from __future__ import annotations

import itertools
import socket
import threading
from array import array
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch

from actors.engines import world
from actors.engines.base import EngineFailed
from actors.engines.transformers.examiner import Wanted
from actors.engines.transformers.options import TransformersOptions
from actors.engines.transformers.parallel import orders
from actors.engines.transformers.parallel.collective import MpiSum, NcclSum
from actors.engines.transformers.parallel.line import Closed, Gathering, Line
from actors.engines.transformers.parallel.split import Sum
from actors.engines.transformers.runner import Runner
from actors.engines.transformers.work import Work
from actors.kv.transfer import Part, Shard, Ticket, TransferError

LOAD_S = 600.0
"""For all ranks to have loaded their shares."""


class Follower:
    """One other rank. Its answers are read in a thread of their own."""

    def __init__(self, rank: int, stream: socket.socket, lost: Callable[[str], None]) -> None:
        self.line: Line[orders.Answer, orders.Order] = Line(stream, orders.Answer)
        self.loaded: Future[orders.Loaded] = Future()
        self._rank = rank
        self._lost = lost
        self._asked: dict[int, Future[orders.Answer]] = {}
        self._lock = threading.Lock()
        self._gone = ""
        """Why, once it has."""
        self._reader = threading.Thread(target=self._read, name=f"rank-{rank}", daemon=True)
        self._reader.start()

    def ask(self, number: int, order: orders.Offer | orders.Fetch) -> Future[orders.Answer]:
        """Give an order; its answer, or Closed when the rank is lost first."""
        answer: Future[orders.Answer] = Future()
        with self._lock:
            if self._gone:
                answer.set_exception(Closed(self._gone))
                return answer
            self._asked[number] = answer
        try:
            self.line.say(order)
        except Closed as error:
            self._lose(str(error))
        return answer

    def close(self) -> None:
        self._gone = self._gone or "the engine is closing"
        self.line.close()
        self._reader.join()

    def _read(self) -> None:
        try:
            while True:
                match self.line.hear():
                    case orders.Loaded() as answer:
                        self.loaded.set_result(answer)
                    case orders.Broken(error):
                        self._lose(error)
                        return
                    case answer:
                        with self._lock:
                            asked = self._asked.pop(answer.number)
                        asked.set_result(answer)
        except Closed as error:
            self._lose(f"it has gone: {error}")

    def _lose(self, why: str) -> None:
        with self._lock:
            expected = bool(self._gone)
            self._gone = self._gone or why
            waiting, self._asked = list(self._asked.values()), {}
        for answer in waiting:
            answer.set_exception(Closed(self._gone))
        reason = f"rank {self._rank} of the engine: {self._gone}"
        if not self.loaded.done():
            self.loaded.set_exception(EngineFailed(reason))
        if not expected:
            self._lost(reason)


class Team:
    """All ranks of an engine but this one, which is the first. `Peers` of its `Exchange`."""

    def __init__(self, options: TransformersOptions, lost: Callable[[str], None]) -> None:
        """Call the next ranks of this MPI program together. `lost` is told, in any thread, when
        one has gone: the engine is over then, and a step under way may never end.

        Raises EngineFailed.
        """
        self.part = Part(0, options.tensor_parallel_size)
        self._options = options
        self._numbers = itertools.count()
        self._followers: list[Follower] = []
        try:
            gathering = Gathering(options.transfer_host)
            self._group = world.call_followers(
                self.part.size, msgspec.msgpack.encode(gathering.address)
            )
            streams = gathering.receive(self.part.size - 1)
        except OSError as error:
            raise EngineFailed(
                f"the ranks of the engine cannot meet on {options.transfer_host}: {error}"
            ) from error
        for rank, stream in enumerate(streams, start=1):
            self._followers.append(Follower(rank, stream, lost))

    def begin_loading(self, device: torch.device) -> Sum:
        """Have every rank load its share; what sums over them, once they have come that far."""
        size = self.part.size
        rendezvous = "" if device.type == "cpu" else _rendezvous(self._options.transfer_host)
        for rank, follower in enumerate(self._followers, start=1):
            self._say(follower, orders.Load(self._options, rank, size, rendezvous))
        return summed(self._group, self._options, rendezvous, self.part, device)

    def await_loading(self) -> None:
        """Return when every rank could compute. Raises EngineFailed with what is wrong."""
        for follower in self._followers:
            try:
                follower.loaded.result(LOAD_S)
            except TimeoutError:
                raise EngineFailed(f"a rank did not load its share within {LOAD_S:g} s") from None

    def begin_step(self, works: Sequence[Work]) -> None:
        """Have every rank take part in the forward pass that this one computes now."""
        order = orders.Compute(
            [(array("I", work.tokens).tobytes(), work.start, list(work.blocks)) for work in works]
        )
        for follower in self._followers:
            self._say(follower, order)

    def close(self) -> None:
        """Send the others away."""
        for follower in self._followers:
            try:
                follower.line.say(orders.Stop())
            except Closed:
                continue
        for follower in self._followers:
            follower.close()

    # -- as `Peers` ------------------------------------------------------------------------------

    def offer(self, blocks: tuple[int, ...]) -> list[Shard]:
        found = []
        for answer in self._ask(lambda number: orders.Offer(number, blocks)):
            offered = _result(answer)
            assert isinstance(offered, orders.Offered), "an offer is answered so"
            found.append(offered.shard)
        return found

    def withdraw(self, offers: Sequence[int]) -> None:
        for follower, offer in zip(self._followers, offers, strict=True):
            self._say(follower, orders.Withdraw(offer))

    def fetch(self, ticket: Ticket, skip: int, blocks: Sequence[int]) -> Callable[[], None]:
        wanted = tuple(blocks)
        answers = self._ask(lambda number: orders.Fetch(number, ticket, skip, wanted))

        def wait() -> None:
            # All of them: what is still being written to must not be used for something else.
            failures = [answer.exception() for answer in answers]
            for answer, failure in zip(answers, failures, strict=True):
                if failure is None:
                    _result(answer)
                else:
                    raise TransferError(f"a rank was lost: {failure}")

        return wait

    def _ask(
        self, order: Callable[[int], orders.Offer | orders.Fetch]
    ) -> list[Future[orders.Answer]]:
        number = next(self._numbers)
        return [follower.ask(number, order(number)) for follower in self._followers]

    def _say(self, follower: Follower, order: orders.Order) -> None:
        try:
            follower.line.say(order)
        except Closed as error:
            raise EngineFailed(f"a rank of the engine has gone: {error}") from error


class LeadingRunner(Runner):
    """Computes with a team."""

    def __init__(self, team: Team, model: Any, pool: torch.Tensor, *, deterministic: bool) -> None:
        super().__init__(model, pool, deterministic=deterministic)
        self._team = team

    def run(self, works: Sequence[Work]) -> torch.Tensor:
        self._team.begin_step(works)
        return super().run(works)

    def examine(self, works: Sequence[Work], wanted: Wanted) -> list[npt.NDArray[np.float64]]:
        self._team.begin_step(works)
        return super().examine(works, wanted)


def summed(
    group: Any, options: TransformersOptions, rendezvous: str, part: Part, device: torch.device
) -> Sum:
    """What sums over the ranks, for ranks on these devices."""
    if rendezvous:
        return NcclSum(rendezvous, part.rank, part.size, device)
    return MpiSum(group, exact=options.deterministic)


def _rendezvous(host: str) -> str:
    # Free now; NCCL's rank 0, which is in this process, takes it at once.
    with socket.create_server((host, 0)) as probe:
        return f"tcp://{host}:{probe.getsockname()[1]}"


def _result(answer: Future[orders.Answer]) -> orders.Answer:
    try:
        found = answer.result()
    except Closed as error:
        raise TransferError(f"a rank was lost: {error}") from error
    if isinstance(found, orders.Failed):
        raise TransferError(found.error)
    return found
