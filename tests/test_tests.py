"""What tests must not do to each other."""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent


def test_importing_a_file_leaves_the_environment_alone() -> None:
    """Once a proxy that is none was set so, and every later test of that process that fetched something failed."""
    changed = [
        f"{path.relative_to(TESTS)}:{statement.lineno}"
        for path in TESTS.rglob("*.py")
        for statement in ast.parse(path.read_text()).body
        if isinstance(statement, ast.Assign) and "environ[" in ast.unparse(statement.targets[0])
    ]
    assert changed == []
