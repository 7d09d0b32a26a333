"""Worker → routers: what is in the cache, and how busy the engine is. Router → worker: tell me all.

    worker ──Report──────▶ every router    what has changed; at most one in `report_every_s`
    router ──TellInventory▶ worker         on its start, for a new worker, and after a gap
    worker ──Inventory───▶ that router     every block, in parts

Reports are numbered, one number series for each life of a worker. Who has all reports up to a
number knows the worker's cache; who has missed one asks for the inventory, which says up to which
number it is complete. Nothing is stored on the way: the state lives with its owner.

    router ──Placed──────▶ other routers   what it has sent to whom, before any report can show it
"""

from __future__ import annotations

import msgspec

from actors.messages.cache import CacheEvent, Load
from actors.messages.key import RequestKey
from actors.runtime.address import Address
from actors.runtime.message import Message

HEARTBEAT_S = 2.0
"""A worker with nothing to say says so this often."""
INVENTORY_PART_BLOCKS = 50_000
"""Sequence hashes in one part: 450 kB at most, under the default frame limit of NATS."""


class Report(Message, frozen=True):
    """What has changed at a worker since its report before."""

    worker: Address
    number: int
    """One more than the last report's, be it one that brings news or a heartbeat."""
    load: Load
    at: float
    """Seconds since 1970, by the worker's clock."""
    events: tuple[CacheEvent, ...] = ()
    taken: tuple[RequestKey, ...] = ()
    """Work that has arrived since: `load` counts it."""
    unneeded: tuple[tuple[RequestKey, Address], ...] = ()
    """Prompts that ended here, at their first token or before: this generation worker was to go on
    and will not hear of them."""


class TellInventory(Message, frozen=True):
    """Send your inventory to this router."""

    router: Address


class Inventory(Message, frozen=True):
    """A part of all blocks that can be reused at a worker."""

    worker: Address
    number: int
    """Complete up to this report; the same in all parts."""
    part: int
    """0, 1, ..."""
    last: bool
    blocks: tuple[int, ...]
    """Sequence hashes, parents before children."""
    load: Load


class Placement(msgspec.Struct, frozen=True, array_like=True):
    """What one request will cost a worker."""

    key: RequestKey
    worker: Address
    prefill_tokens: int
    """Prompt tokens it has to compute."""
    blocks: int
    """KV blocks it will hold."""
    computed: tuple[int, ...] = ()
    """Sequence hashes of the first blocks that it has to compute, and will have in its cache in a
    moment."""


class Placed(Message, frozen=True):
    """What a router has placed since it last said so."""

    placements: tuple[Placement, ...]
