from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge.bench.machine import Condition, CpuWatch, busy, condition, machine, processor, usable_cores

PI_5 = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"
PC = "processor\t: 0\nmodel name\t: Intel(R) Celeron(R) N5105 @ 2.00GHz\n"


@pytest.mark.parametrize(("text", "name"), [(PI_5, "Cortex-A76"), (PC, "Intel(R) Celeron(R) N5105 @ 2.00GHz")])
def test_the_processor_has_a_name(text: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    assert processor(tmp_path) == name


def test_one_that_nobody_knows_is_its_architecture(tmp_path: Path) -> None:
    assert processor(tmp_path) == os.uname().machine
    (tmp_path / "cpuinfo").write_text(PI_5.replace("d0b", "fff"))
    assert processor(tmp_path) == os.uname().machine


def test_this_machine_can_be_described() -> None:
    here = machine()
    assert here.board
    assert 1 <= here.cores == usable_cores() <= here.cores_present
    assert here.memory_mb > 100
    assert condition().load >= 0


def test_a_load_is_much_or_little_by_the_number_of_cores() -> None:
    cores = os.cpu_count() or 1
    assert busy(Condition(None, None, load=0.5 * cores))
    assert not busy(Condition(None, None, load=0.05 * cores))


def test_what_others_take_is_what_is_used_and_not_by_us(tmp_path: Path) -> None:
    def stat(user: int, idle: int, steal: int) -> None:
        (tmp_path / "stat").write_text(f"cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 1 1 1\n")

    stat(1000, 1000, 0)
    watch = CpuWatch(tmp_path)
    stat(1000 + 30_000, 1000 + 60_000, 10_000)
    share = watch.others()
    assert share == pytest.approx(0.4, abs=0.01), "but for the moment that this test has used"


def test_our_own_work_is_nobody_elses(tmp_path: Path) -> None:
    def stat(used: float, passed: float) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        (tmp_path / "stat").write_text(f"cpu  {int(used * ticks)} 0 0 {int((passed - used) * ticks)} 0 0 0 0 0 0\n")

    stat(0.0, 0.0)
    watch, began_s = CpuWatch(tmp_path), time.process_time()
    while time.process_time() - began_s < 0.2:
        pass
    stat(time.process_time() - began_s, 1.0)
    assert watch.others() == pytest.approx(0.0, abs=0.02)


def test_a_kernel_that_says_nothing_is_no_mistake(tmp_path: Path) -> None:
    assert CpuWatch(tmp_path).others() is None
