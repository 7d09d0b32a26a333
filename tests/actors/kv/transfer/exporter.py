"""A process that offers blocks, for tests that need a second one.

    python -m tests.actors.kv.transfer.exporter TRANSPORT

Prints the tickets of three offers, in hexadecimal, one a line. Block i is full of byte i + 1. Then
reads commands: `withdraw N` ends an offer and answers `done`; the end of input ends the process.
"""

from __future__ import annotations

import sys
from typing import cast

from actors.kv.transfer import Exchange, Geometry, SharedMemory
from actors.kv.transfer.exchange import TransportChoice

GEOMETRY = Geometry(layers=2, kv_heads=2, head_dim=8, dtype="float32", block_tokens=4)
BLOCK_BYTES = GEOMETRY.elements * 4
BLOCKS = 8
OFFERED = (5, 2, 7)


def filled(blocks: int) -> SharedMemory:
    memory = SharedMemory(blocks, BLOCK_BYTES)
    for block in range(blocks):
        with memory.write(block) as view:
            view[:] = bytes([block + 1]) * BLOCK_BYTES
    return memory


def main() -> None:
    choice = cast("TransportChoice", sys.argv[1])
    exchange = Exchange(filled(BLOCKS), GEOMETRY, choice, "127.0.0.1")
    tickets = [exchange.offer(OFFERED, 11) for _ in range(3)]
    for ticket in tickets:
        print(ticket.encode().hex())
    sys.stdout.flush()
    for line in sys.stdin:
        _, number = line.split()
        exchange.withdraw(tickets[int(number)])
        print("done", flush=True)
    exchange.close()


if __name__ == "__main__":
    main()
