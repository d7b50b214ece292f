from __future__ import annotations

from edge.diagnosis import Finding, Verdict, exit_code
from edge.errors import ExitCode


def failed(code: ExitCode) -> Finding:
    return Finding("part", Verdict.FAILED, "no", "mend it", code)


def test_what_would_end_run_decides_before_what_run_would_endure() -> None:
    fine = [Finding("a", Verdict.OK, ""), Finding("b", Verdict.WARNING, "", "better"), Finding("c", Verdict.OFF, "")]
    assert exit_code([]) == exit_code(fine) == ExitCode.OK
    assert exit_code([*fine, failed(ExitCode.FAILED)]) == ExitCode.FAILED
    assert exit_code([failed(ExitCode.FAILED), failed(ExitCode.NO_INPUT), failed(ExitCode.CONFIG)]) == ExitCode.NO_INPUT
