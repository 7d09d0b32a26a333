"""How many of OTP's cases are held: `python -m tests.conformance.summary`.

Reads the tests instead of running them; that they pass is pytest's to say.
"""

from __future__ import annotations

import ast
from pathlib import Path

from tests.conformance.cases import ADAPTED, HELD, NOT_APPLICABLE, WITH_PROCESSES

OURS = frozenset(
    {
        "every_case_has_a_test",
        "adding_many_children_is_linear_under_a_static_supervisor",
    }
)
"""Tests in this folder that are no case of OTP's."""


def found(below: str = "") -> dict[str, bool]:
    """The case of each test in this folder, or one below, and whether its docstring says
    "Adapted:"."""
    tests: dict[str, bool] = {}
    for path in sorted((Path(__file__).parent / below).glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test_"):
                tests[node.name.removeprefix("test_")] = "Adapted:" in (
                    ast.get_docstring(node) or ""
                )
    return tests


def main() -> None:
    """Print the counts, and the cases that have no test."""
    tests = found()
    rows = (
        ("held", HELD, [name for name in HELD if name in tests]),
        ("adapted", ADAPTED, [name for name in ADAPTED if name in tests]),
        ("not applicable", NOT_APPLICABLE, list(NOT_APPLICABLE)),
    )
    for label, cases, present in rows:
        print(f"{label:15} {len(present):3} of {len(cases)}")
    real = found("processes")
    shown = sum(name in real for name in WITH_PROCESSES)
    print(f"{'with processes':15} {shown:3} of {len(WITH_PROCESSES)}, which are among the above")
    print(f"{'total':15} {sum(len(cases) for _, cases, _ in rows):3}")
    missing = [name for name in (*HELD, *ADAPTED) if name not in tests]
    missing += [f"{name}, with processes" for name in WITH_PROCESSES if name not in real]
    for name in missing:
        print(f"missing: {name}")


if __name__ == "__main__":
    main()
