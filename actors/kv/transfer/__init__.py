"""Moving KV blocks from the engine that computed a prompt to the one that continues it.

The engine that needs the blocks pulls them, straight from the other's pool into its own. A *ticket*
says where they are and may be used once. `Exchange` is the whole interface for an engine; behind
it are two transports, shared memory and TCP.
"""

from __future__ import annotations

from actors.kv.transfer.cut import Part
from actors.kv.transfer.errors import TransferError
from actors.kv.transfer.exchange import Exchange, Peers
from actors.kv.transfer.memory import BlockMemory, SharedMemory
from actors.kv.transfer.ticket import Geometry, Shard, Ticket

__all__ = (
    "BlockMemory",
    "Exchange",
    "Geometry",
    "Part",
    "Peers",
    "Shard",
    "SharedMemory",
    "Ticket",
    "TransferError",
)
