"""One request at a worker, and what waits to be sent to one ingress. Pure."""

from __future__ import annotations

import math

import msgspec

from actors.messages.frame import PLAIN_FIELDS, Chunk, Frame
from actors.messages.key import RequestKey
from actors.messages.work import Decode, Generate, Prefill
from actors.runtime.address import Address
from actors.worker.history import Sent

Work = Generate | Prefill | Decode

FRAME_TOKENS = 1024
"""Plain tokens in one frame: an ingress does nothing else while it takes one in."""


class Job(msgspec.Struct, eq=False):
    """One request at this worker."""

    id: int
    work: Work
    sent: int
    """Tokens of this epoch that the ingress has been sent, here or by the context worker."""
    history: Sent
    """The same tokens, for an ingress that did not get them."""
    parcel: Parcel
    """Shared by all jobs of its ingress."""
    handed_off: bool = False
    """A prefill that is done; what is left of it are blocks that wait for `Fetched`."""
    until: float = math.inf
    """When the time of the request is over and nobody waits for it."""
    taken_at: float = 0.0
    """When it came. This and the next only for measuring, on a clock of their own."""
    began_at: float = 0.0
    """When its first output came, or its blocks; 0 before."""
    begun: bool = False
    """Whether a token of it has been sent from here."""
    flows: bool = False
    """Whether a token of it can go into `Parcel.plain`: it has begun, has not been handed off, and
    has nothing in `Parcel.late`."""
    number: int = 0
    epoch: int = 0
    """Of its key, at hand."""
    tokens: list[int] = []
    """Those of its history, at hand."""

    def __post_init__(self) -> None:
        self.number, self.epoch = self.work.key.number, self.work.key.epoch
        self.tokens = self.history.tokens

    @property
    def key(self) -> RequestKey:
        return self.work.key


class Parcel(msgspec.Struct, eq=False):
    """What engine steps have brought for one ingress and has not been sent yet. Of each sequence
    what came first is read first: `chunks`, then `plain`, then `late`."""

    ingress: Address
    chunks: list[Chunk] = []
    plain: list[int] = []
    """As in `Frame`."""
    late: list[Chunk] = []
    """Of sequences that may have tokens in `plain`."""
    halted: list[Job] = []
    """Those with something in `late`, but for their ends."""
    is_open: bool = False
    """It holds something."""
    jobs: int = 0
    """How many it is for; it lives as long as they."""

    def add(self, job: Job, chunk: Chunk) -> None:
        """Put in what is more than one token."""
        if not (job.begun and self.plain):
            self.chunks.append(chunk)
            return
        self.late.append(chunk)
        if job.flows and not chunk.finish:
            job.flows = False
            self.halted.append(job)

    def take(self, worker: Address) -> list[Frame]:
        """All of it, to be sent in this order."""
        chunks, plain, late = self.chunks, self.plain, self.late
        self.chunks, self.plain, self.late, self.is_open = [], [], [], False
        for job in self.halted:
            job.flows = not job.handed_off
        self.halted = []
        most = FRAME_TOKENS * PLAIN_FIELDS
        if len(plain) <= most:
            frames = [Frame(worker, chunks, plain)] if chunks or plain else []
        else:
            frames = [Frame(worker, chunks)] if chunks else []
            frames += [Frame(worker, [], plain[i : i + most]) for i in range(0, len(plain), most)]
        if late:
            frames.append(Frame(worker, late))
        return frames
