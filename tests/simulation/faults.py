"""What can go wrong in a simulation, when, and to whom: one flat list, drawn from the seed.

A fault strikes at a time, or at the n-th message of a kind (then its target may be the message's
sender, just after it was sent, or its receiver, just before it arrives). Each stands for itself,
so that a failing run can be tried again with some of them left out.
"""

from __future__ import annotations

import random
from typing import Literal

import msgspec

What = Literal[
    "kill",
    "freeze",
    "cut",
    "nats-stop",
    "etcd-stop",
    "etcd-pause",
    "etcd-loss",
    "etcd-away",
    "etcd-lag",
    "etcd-compact",
    "lease-revoked",
    "key-deleted",
    "weather",
    "supervisor-kill",
    "restart",
    "fetch-fails",
    "engine-fails",
    "engine-stalls",
]
KINDS = ("Submit", "Route", "Assigned", "Prefill", "Decode", "Generate", "Fetched", "Frame")


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One of them. `target` is a node, or `sender` or `receiver` of the message waited for."""

    what: What
    target: str = ""
    at: float = 0.0
    on: str = ""
    nth: int = 0
    last_s: float = 0.0
    how: str = ""
    loss: float = 0.0
    double: float = 0.0
    late: float = 0.0

    def __str__(self) -> str:
        when = f"at {self.at:.3f} s" if not self.on else f"at {self.on} number {self.nth}"
        shown = [self.what, self.target, self.how, when]
        if self.last_s:
            shown.append(f"for {self.last_s:.3f} s")
        if self.what == "weather":
            shown.append(f"loss {self.loss:.3f} double {self.double:.3f} late {self.late:.3f}")
        return " ".join(part for part in shown if part)


def _when(rng: random.Random, until_s: float) -> dict[str, float]:
    return {"at": rng.uniform(0.0, until_s)}


def _strike_node(rng: random.Random, what: What, nodes: list[str], until_s: float) -> Fault:
    last_s = 0.0 if what == "kill" else rng.choice((0.05, 0.4, 1.2, 3.0, 12.0, 25.0))
    how = rng.choice(("hold", "lose")) if what == "cut" else ""
    if rng.random() < 0.6:
        return Fault(
            what=what,
            target=rng.choice(("sender", "receiver")),
            on=rng.choice(KINDS),
            nth=rng.randrange(1, 25),
            last_s=last_s,
            how=how,
        )
    return Fault(
        what=what, target=rng.choice(nodes), at=rng.uniform(0, until_s), last_s=last_s, how=how
    )


def draw(rng: random.Random, nodes: list[str], workers: list[str], until_s: float) -> Fault:
    """One fault of any sort."""
    what: What = rng.choices(
        (
            "kill",
            "freeze",
            "cut",
            "nats-stop",
            "etcd-stop",
            "etcd-pause",
            "etcd-loss",
            "etcd-away",
            "etcd-lag",
            "etcd-compact",
            "lease-revoked",
            "key-deleted",
            "weather",
            "supervisor-kill",
            "restart",
            "fetch-fails",
            "engine-fails",
            "engine-stalls",
        ),
        (14, 8, 8, 3, 2, 2, 2, 3, 3, 1, 2, 2, 6, 2, 3, 3, 2, 2),
    )[0]
    at = rng.uniform(0.0, until_s)
    last_s = rng.choice((0.1, 1.0, 5.0, 15.0))
    match what:
        case "kill" | "freeze" | "cut":
            return _strike_node(rng, what, nodes, until_s)
        case "weather":
            return Fault(
                what=what,
                at=at,
                last_s=rng.choice((0.3, 1.0, 3.0)),
                loss=rng.choice((0.0, 0.02, 0.1)),
                double=rng.choice((0.0, 0.05, 0.2)),
                late=rng.choice((0.0, 0.05, 0.2)),
            )
        case "nats-stop" | "etcd-stop" | "etcd-pause" | "etcd-loss" | "etcd-lag":
            return Fault(what=what, at=at, last_s=last_s)
        case "supervisor-kill":
            return Fault(what=what, at=at, last_s=last_s)
        case "etcd-away":
            return Fault(what=what, at=at, target=rng.choice(nodes), last_s=last_s)
        case "fetch-fails" | "engine-fails" | "engine-stalls":
            return Fault(what=what, at=at, target=rng.choice(workers))
        case _:
            return Fault(what=what, at=at, target=rng.choice(nodes))
