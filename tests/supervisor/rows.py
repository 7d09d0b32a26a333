"""Statuses as tests need them."""

from __future__ import annotations

from typing import Any

import msgspec

from supervisor.calls import ActorStatus, ChildRow, Status


def row(name: str, supervisor: str = "supervisor", **facts: Any) -> ChildRow:
    base = ChildRow(
        id=name, supervisor=supervisor, is_supervisor=False, state="running", run=1, restarts=0
    )
    return msgspec.structs.replace(base, **facts)


def actor(name: str, incarnation: int | None = 1, **gauges: float) -> ActorStatus:
    role, _, instance = name.partition("/")
    return ActorStatus(role=role, instance=int(instance), incarnation=incarnation, gauges=gauges)


def status(*children: ChildRow, clock_s: float = 100.0, **facts: Any) -> Status:
    base = Status(
        namespace="blue",
        topology="/t/blue.yaml",
        pid=42,
        since=1000.0,
        state="running",
        nats=("nats://127.0.0.1:4222",),
        etcd=("http://127.0.0.1:2379",),
        urls=("http://127.0.0.1:8080/v1",),
        models=("capitals",),
        children=(row("supervisor", "", is_supervisor=True), *children),
        clock_s=clock_s,
    )
    return msgspec.structs.replace(base, **facts)
