"""What one seed means: the service, its options, the requests and the faults."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec

from actors.runtime.process import ActorSpec, NodeSpec
from actors.runtime.registry.etcd import EtcdSettings
from actors.runtime.transport.nats import NatsSettings
from supervisor import tree
from tests.service import CAPITALS, MODEL
from tests.simulation import faults
from tests.simulation.faults import Fault
from tests.simulation.workload import Ask, plan_asks

NAMESPACE = "sim"
CALM_CUT_S = 3.0
WORK_S = 2.0
"""Requests begin and faults strike within this time."""

CLASSES = {
    "ingress": "actors.ingress.actor:Ingress",
    "preprocessor": "actors.preprocessor.actor:Preprocessor",
    "router": "actors.router.actor:Router",
    "context": "actors.worker.actor:ContextWorker",
    "generation": "actors.worker.actor:GenerationWorker",
    "aggregated": "actors.worker.actor:AggregatedWorker",
}
WORKERS = ("context", "generation", "aggregated")
LAYOUTS: dict[str, tuple[tuple[str, ...], ...]] = {
    "pairs": (
        ("context/0",),
        ("context/1",),
        ("generation/0",),
        ("generation/1",),
        ("router/0",),
        ("router/1",),
        ("preprocessor/0",),
        ("preprocessor/1",),
        ("ingress/0",),
        ("ingress/1",),
    ),
    "singles": (
        ("context/0",),
        ("generation/0",),
        ("router/0",),
        ("preprocessor/0",),
        ("ingress/0",),
    ),
    "fused": (
        ("context/0",),
        ("generation/0",),
        ("generation/1",),
        ("router/0", "preprocessor/0", "ingress/0"),
        ("router/1", "preprocessor/1", "ingress/1"),
    ),
    "aggregated": (
        ("aggregated/0",),
        ("aggregated/1",),
        ("router/0",),
        ("preprocessor/0",),
        ("ingress/0",),
        ("ingress/1",),
    ),
    "mixed": (
        ("context/0",),
        ("generation/0",),
        ("aggregated/0",),
        ("router/0", "preprocessor/0"),
        ("ingress/0",),
    ),
}


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a run does, but for the order of what happens at once."""

    seed: int
    layout: str
    calm: bool
    """One fault only: no client may see an error."""
    watchdog: bool
    engine: dict[str, Any]
    ingress: dict[str, Any]
    preprocessor: dict[str, Any]
    asks: list[Ask]
    faults: list[Fault]

    @property
    def nodes(self) -> tuple[tuple[str, ...], ...]:
        return LAYOUTS[self.layout]

    def tree(self) -> tree.SupervisorSpec:
        """The supervision tree of the service."""
        backoff = tree.Backoff(reset_after_s=5.0, initial_s=0.2, max_s=2.0)
        children = tuple(
            tree.ChildSpec(
                node[0],
                drain_s=10.0,
                start_deadline_s=30.0,
                backoff=backoff,
                data=self._node(node),
            )
            for node in self.nodes
        )
        return tree.SupervisorSpec("root", intensity=1000, period_s=1.0, children=children)

    def _node(self, actors: tuple[str, ...]) -> NodeSpec:
        return NodeSpec(
            name=actors[0],
            namespace=NAMESPACE,
            base_dir="/",
            nats=NatsSettings(urls=("nats://simulated",)),
            etcd=EtcdSettings(urls=("http://simulated",)),
            actors=tuple(self._actor(name) for name in actors),
            link="/simulated",
        )

    def _actor(self, name: str) -> ActorSpec:
        role, _, instance = name.partition("/")
        options: dict[str, Any] = {}
        if role in WORKERS:
            engine = {"kind": "simulated", "tokenizer": str(CAPITALS), **self.engine}
            options = {"model": MODEL, "engine": engine}
        elif role == "ingress":
            options = {"port": 0, **self.ingress}
        elif role == "preprocessor":
            options = self.preprocessor
        return ActorSpec(
            actor=CLASSES[role],
            role=role,
            instance=int(instance),
            options=msgspec.Raw(msgspec.json.encode(options)),
        )


def make(seed: int) -> Scenario:
    """The scenario of a seed."""
    rng = random.Random(f"scenario/{seed}")
    layout = rng.choice(list(LAYOUTS))
    nodes = [node[0] for node in LAYOUTS[layout]]
    workers = [name for name in nodes if name.partition("/")[0] in WORKERS]
    calm = rng.random() < 0.4
    count = 1 if calm else rng.randrange(2, 9)
    drawn = _calm if calm else faults.draw
    ingresses = sum(name.startswith("ingress/") for node in LAYOUTS[layout] for name in node)
    short_policy = {
        "assign_timeout_s": 2.0,
        "progress_timeout_s": 3.0,
        "gap_timeout_s": 0.3,
        "recovery_s": 10.0,
    }
    return Scenario(
        seed=seed,
        layout=layout,
        calm=calm,
        watchdog=calm or rng.random() < 0.6,
        engine=_engine(rng),
        ingress={"replay": short_policy} if rng.random() < 0.5 else {},
        preprocessor={"inline_bytes": rng.choice((0, 100, 8192))},
        asks=plan_asks(rng, rng.choice((4, 8, 16)), WORK_S, ingresses),
        faults=[drawn(rng, nodes, workers, WORK_S) for _ in range(count)],
    )


def _engine(rng: random.Random) -> dict[str, Any]:
    def constant(*choices: float) -> dict[str, float]:
        return {"quadratic": 0, "linear": 0, "constant": rng.choice(choices)}

    return {
        "decode_ms": constant(2, 8, 25),
        "prefill_ms": constant(2, 15, 60),
        "handoff_ms": constant(1, 10, 80),
        "blocks": rng.choice((24, 64, 4096)),
        "eos_every": rng.choice((0, 0, 50)),
        "max_running": rng.choice((3, 256)),
        "handoff_ttl_s": rng.choice((2.0, 30.0)),
        "load_time_s": rng.choice((0.0, 0.3)),
        "prefix_cache": rng.random() < 0.8,
    }


def _calm(rng: random.Random, nodes: list[str], workers: list[str], until_s: float) -> Fault:
    """One of the faults that no client may notice but by a pause."""
    draw: Callable[..., Fault] = faults.draw
    while True:
        fault = draw(rng, nodes, workers, until_s)
        if fault.what == "weather" or fault.how == "lose":
            # These lose messages between processes that live: more than one fault's share.
            continue
        if fault.what == "cut" and fault.last_s > CALM_CUT_S:
            # The only one of its kind, out of reach for long: nobody could serve.
            continue
        return fault
