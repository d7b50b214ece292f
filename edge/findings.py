"""What `doctor` finds: a verdict, facts and a remedy for each part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from edge.errors import ExitCode


class Verdict(StrEnum):
    OK = "ok"
    WARNING = "warning"  # it works, but not as well as it could
    FAILED = "failed"  # the main job can't run like this
    OFF = "off"  # not configured, or can't be tried because something else failed


@dataclass(frozen=True, slots=True)
class Finding:
    """One part: how it is, the facts, and what to do about it (empty when there is nothing to do).

    exit_code: of a failed one, what `run` would end with because of it, or FAILED for what `run` would endure.
    """

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""
    exit_code: ExitCode = ExitCode.OK


def failed(name: str, detail: str, remedy: str, exit_code: ExitCode = ExitCode.FAILED) -> Finding:
    return Finding(name, Verdict.FAILED, detail, remedy, exit_code)


def exit_code(findings: Sequence[Finding]) -> ExitCode:
    """0 when the main job can run, else what `run` would end with, else FAILED."""
    codes = [finding.exit_code for finding in findings if finding.verdict is Verdict.FAILED]
    return next((code for code in codes if code is not ExitCode.FAILED), codes[0] if codes else ExitCode.OK)
