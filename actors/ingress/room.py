"""How many connections there is room for."""

from __future__ import annotations

CONNECTIONS_A_REQUEST = 2
"""Of each request in progress another may be open that its client keeps for the next one."""
SPARE_FILES = 512
"""For all else that the process opens: NATS, etcd, logs, tokenizers, connections beyond the limit
that are told so, and the other actors of its node."""


def connections(wanted: int | None, requests: int, files: int) -> int:
    """The limit: as wanted, or by the number of requests, and never more than the process may open
    (`files`, RLIMIT_NOFILE) with some to spare; with few files, half of them."""
    most = max(1, files - min(SPARE_FILES, files // 2))
    return min(CONNECTIONS_A_REQUEST * requests if wanted is None else wanted, most)
