"""What the shipped dashboard and rules ask of Prometheus, taken apart far enough to compare it with
what a service says. That it is PromQL at all is for `promtool check rules` to say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

DIRECTORY = Path(__file__).parents[2] / "deploy" / "observability"
_RECORDED = re.compile(r"\b[a-z]+:understudy_\w+(?::\w+)?")
_SELECTOR = re.compile(r"(?<![:\w])((?:understudy|process)_\w+)(\{[^}]*\})?(\[)?")
_MATCHER = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_BY = re.compile(r"\bby\s*\(([^)]*)\)")


class Selector(NamedTuple):
    """One series, or several, that an expression reads."""

    name: str
    labels: frozenset[str]
    over_time: bool
    """Whether a range of it is read, as `rate` does."""


class Question(NamedTuple):
    """One expression, and where it stands."""

    where: str
    expression: str

    @property
    def selectors(self) -> list[Selector]:
        text = _RECORDED.sub("", self.expression)
        return [
            Selector(name, frozenset(_MATCHER.findall(labels)), bool(bracket))
            for name, labels, bracket in _SELECTOR.findall(text)
        ]

    @property
    def grouped_by(self) -> set[str]:
        inside = ",".join(_BY.findall(self.expression))
        return {name.strip() for name in inside.split(",") if name.strip()}

    @property
    def recorded(self) -> set[str]:
        """Names of recording rules that it reads."""
        return set(_RECORDED.findall(self.expression))


def dashboard() -> Any:
    return json.loads((DIRECTORY / "dashboard.json").read_bytes())


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((DIRECTORY / "rules.yaml").read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def questions() -> list[Question]:
    """Of every panel and every rule."""
    asked = [Question(rule.get("record") or rule["alert"], rule["expr"]) for rule in rules()]
    for panel in dashboard()["panels"]:
        asked += [Question(panel["title"], one["expr"]) for one in panel.get("targets", [])]
    return asked
