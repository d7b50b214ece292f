from __future__ import annotations

import shutil
import subprocess

import pytest

from edge.device import clock
from tests.test_clocks import Machine


def test_it_agrees_with_the_kernels_own_tool_where_that_is_installed() -> None:
    said = clock.synchronised()
    assert said in {True, False, None}
    if tool := shutil.which("adjtimex"):
        status = subprocess.run([tool, "--print"], check=True, capture_output=True, text=True).stdout
        assert said is ("return value = 5" not in status)


def test_how_far_off_it_may_be_is_known_where_somebody_keeps_it() -> None:
    error_ms = clock.error_ms()
    assert (error_ms is None) == (clock.synchronised() is not True)
    assert error_ms is None or 0 <= error_ms <= 16_000, "the kernel counts no further: NTP_PHASE_LIMIT"


def test_whoever_sets_the_clock_is_told_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    machine = Machine()
    watch = clock.ClockWatch(machine)
    assert watch.report().steps == 0
    machine.wall_ns += 3_200_000_000
    assert watch.report().steps == 1
    machine.monotonic_ns += 60_000_000_000
    assert watch.report().steps == 1
    machine.wall_ns -= 3_600_000_000_000
    assert watch.report().steps == 2
    assert [line[:28] for line in caplog.messages] == ["the clock was set by +3.200 ", "the clock was set by -3600.0"]
