from __future__ import annotations

from pathlib import Path

from supervisor.topology import Overrides, read_text

TOPOLOGY = """
children:
  - actor: generation
    options: {engine: {kind: simulated}}
  - name: front
    children:
      - actor: router
      - {actor: context, options: {engine: {kind: simulated}}}
  - name: workers
    children:
      - {actor: aggregated, options: {engine: {kind: simulated}}}
  - actor: ingress
"""


def test_without_workers_all_else_is_left_where_it_was(tmp_path: Path) -> None:
    overrides = Overrides(without_workers=True)

    reading = read_text(TOPOLOGY, tmp_path / "file.yaml", environ={}, overrides=overrides)

    assert [child.name for child in reading.topology.children] == ["front", "ingress"]
    names = [instance.name for instance in reading.topology.node_instances()]
    assert names == ["router/0", "ingress/0"]
