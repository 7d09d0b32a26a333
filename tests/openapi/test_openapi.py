"""The service is what its OpenAPI document says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from actors.ingress.http import NOT_SERVED
from actors.ingress.openapi import described
from tests.actors.ingress.clients import fetch
from tests.actors.ingress.test_gate import guarded
from tests.openapi.run import SMALL, run
from tests.service import aggregated, disaggregated


async def test_every_route_is_in_the_document() -> None:
    async with aggregated() as (_, ingress):
        routes = set(ingress._server._routes.patterns)
        answer = await fetch(ingress, "/openapi.json")

    refused = {("POST", f"/v1/{name}") for name in NOT_SERVED}
    assert routes - refused == described()
    paths = answer.json["paths"]
    named = {(m.upper(), re.sub(r"{\w+}", "*", path)) for path in paths for m in paths[path]}
    assert named == routes - refused


async def test_what_is_switched_off_is_not_in_the_document() -> None:
    async with aggregated(ingress={"chat_page": False, "metrics": False}) as (_, ingress):
        answer = await fetch(ingress, "/openapi.json")

    assert not {"/", "/metrics"} & answer.json["paths"].keys()


async def test_who_has_no_key_can_read_that_one_is_needed(tmp_path: Path) -> None:
    async with guarded(tmp_path / "k") as ingress:
        answer = await fetch(ingress, "/openapi.json")

    assert answer.status == 200
    paths = answer.json["paths"]
    assert paths["/v1/completions"]["post"]["security"] == [{"bearer": []}]
    assert "401" in paths["/v1/completions"]["post"]["responses"]
    assert "security" not in paths["/ready"]["get"]


@pytest.mark.slow
@pytest.mark.deadline(120)
async def test_schemathesis_finds_nothing() -> None:
    """All boundary values, and some requests at random; `make schemathesis` tries more."""
    async with disaggregated(ingress=SMALL) as (_, ingress):
        found = await run(ingress, 2, "coverage,fuzzing", seed=7)

    assert found.code == 0, found.report
    assert found.cases > 300
