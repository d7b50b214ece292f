from __future__ import annotations

import pytest

from edge.diagnosis import Finding, Verdict, exit_code


@pytest.mark.parametrize(
    ("failed", "code"),
    [
        ("config", 78),
        ("cpu", 78),
        ("model", 69),
        ("estimator", 70),
        ("camera.front", 66),
        ("broker", 1),
        ("hub", 1),
    ],
)
def test_the_first_failure_decides_with_which_code_it_ends(failed: str, code: int) -> None:
    fine = [
        Finding("memory", Verdict.OK, "much"),
        Finding("clock", Verdict.WARNING, "slow"),
        Finding("x", Verdict.OFF, ""),
    ]
    assert exit_code(fine) == 0
    assert exit_code([*fine, Finding(failed, Verdict.FAILED, "no"), Finding("hub", Verdict.FAILED, "no")]) == code
