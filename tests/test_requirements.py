"""One environment: our ranges can be met together with what TensorRT-LLM pins. Asks no index."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

HOUSE = Path(__file__).parent.parent
PINS = HOUSE / "constraints" / "tensorrt-llm-1.2.txt"


def pins() -> dict[str, SpecifierSet]:
    lines = (line.partition("#")[0].strip() for line in PINS.read_text().splitlines())
    found = (Requirement(line) for line in lines if line)
    return {requirement.name: requirement.specifier for requirement in found}


def ours() -> dict[str, SpecifierSet]:
    project = tomllib.loads((HOUSE / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    runtime = [name for name in extras if name not in {"dev", "tensorrt-llm"}]
    lines = [*project["dependencies"], *(line for name in runtime for line in extras[name])]
    found: dict[str, SpecifierSet] = {}
    for line in lines:
        requirement = Requirement(line)
        found[requirement.name] = found.get(requirement.name, SpecifierSet()) & (
            requirement.specifier
        )
    return found


def common(one: SpecifierSet, other: SpecifierSet) -> Version | None:
    """A version that both allow. If there is any, there is one at a bound that either names, right
    behind one, or below all: between two bounds nothing changes."""
    bounds = [Version(specifier.version.removesuffix(".*")) for specifier in (*one, *other)]
    behind = [Version(f"{bound.base_version}.0.0.1") for bound in bounds]
    both = one & other
    return next((version for version in (Version("0"), *bounds, *behind) if version in both), None)


def test_the_pins_are_about_packages_of_ours() -> None:
    assert {"numpy", "transformers", "torch", "tokenizers", "huggingface-hub"} <= (
        pins().keys() & ours().keys()
    )


@pytest.mark.parametrize("name", sorted(pins().keys() & ours().keys()))
def test_a_version_satisfies_tensorrt_llm_and_us(name: str) -> None:
    assert common(ours()[name], pins()[name]) is not None, (
        f"{name}: {ours()[name]} here, {pins()[name]} there"
    )


def test_exact_versions_live_in_the_lock_alone() -> None:
    assert [name for name, found in ours().items() if any(s.operator == "==" for s in found)] == []


@pytest.mark.parametrize(
    ("one", "other"), [(">=2", "<2"), ("==1.0", ">1.0"), (">=4.58", "==4.57.1")]
)
def test_ranges_without_a_common_version_are_found_out(one: str, other: str) -> None:
    assert common(SpecifierSet(one), SpecifierSet(other)) is None


@pytest.mark.parametrize(
    ("one", "other"), [(">=1.26", "<2"), (">=2.4", "<=2.9"), (">=0.25", "<1.0")]
)
def test_ranges_with_a_common_version_pass(one: str, other: str) -> None:
    assert common(SpecifierSet(one), SpecifierSet(other)) is not None
