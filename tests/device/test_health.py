from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from edge.device import clock, health

THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    assert health.memory_available_mb(proc, groups) is None
    put(proc / "meminfo", "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    1000000 kB\n")
    assert health.memory_available_mb(proc, groups) == 1024.0
    put(proc / "self" / "cgroup", "0::/\n")
    for limit, used, left_mb in (("2000000000", "500000000", 1024.0), ("800000000", "500000000", 300.0)):
        put(groups / "memory.max", limit)
        put(groups / "memory.current", used)
        put(groups / "memory.stat", "anon 500000000\n")
        assert health.memory_available_mb(proc, groups) == left_mb
    put(proc / "meminfo", "MemTotal:        8000000 kB\n")
    assert health.memory_available_mb(proc, groups) == 300.0
    assert (health.memory_available_mb() or 0) > 10


def test_free_space_is_told_for_directories_that_will_be_made(tmp_path: Path) -> None:
    assert health.free_mb(tmp_path / "will" / "be" / "made") == pytest.approx(health.free_mb(tmp_path), rel=0.1)


def test_the_hottest_sensor_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    assert health.temperature_celsius(tmp_path) is None
    for number, text in enumerate(("45123\n", "61500\n", "", "off")):
        put(tmp_path / "class" / "thermal" / f"thermal_zone{number}" / "temp", text)
    assert health.temperature_celsius(tmp_path) == 61.5


@pytest.mark.parametrize(
    ("text", "now"), [("0\n", False), ("50000\n", False), ("50005\n", True), ("0x4", True), ("?", None)]
)
def test_throttling_is_what_happens_now_not_what_has_happened(tmp_path: Path, text: str, now: bool | None) -> None:  # noqa: FBT001
    assert health.throttled(tmp_path) is None
    put(tmp_path / THROTTLED, text)
    assert health.throttled(tmp_path) is now


def test_a_link_to_nowhere_is_as_good_as_a_directory_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert health.free_mb(tmp_path / "link") == pytest.approx(health.free_mb(tmp_path), rel=0.1)


class TestMachineWatch:
    def test_a_report_tells_of_this_machine_and_of_this_process(self, tmp_path: Path) -> None:
        report = health.MachineWatch(tmp_path).report()

        assert report.memory_mb == pytest.approx(health.memory_resident_mb(), rel=0.2)
        assert report.disk_free_mb == pytest.approx(health.free_mb(tmp_path), rel=0.1)
        assert report.memory_available_mb is not None
        assert report.memory_available_mb > 0
        assert (report.temperature_celsius is None) == (health.temperature_celsius() is None)
        assert report.throttled == health.throttled()
        assert report.clock.synchronised == clock.synchronised()

    def test_without_a_disk_that_matters_none_is_looked_at(self) -> None:
        assert health.MachineWatch(None).report().disk_free_mb is None

    def test_processor_time_is_that_since_the_last_report(self) -> None:
        watch = health.MachineWatch(None)
        began_s, began_cpu_s = time.monotonic(), time.process_time()
        while time.process_time() < began_cpu_s + 0.2:
            sum(range(10_000))
        busy_percent = watch.report().cpu_percent
        # Others may have had the processor as well, so how much of one core it was is measured beside.
        assert busy_percent == pytest.approx(100 * 0.2 / (time.monotonic() - began_s), rel=0.3)

        began_cpu_s = time.process_time()
        time.sleep(0.3)
        assert watch.report().cpu_percent <= 100 * (time.process_time() - began_cpu_s) / 0.3 + 1

    def test_two_reports_at_once_do_not_divide_by_nothing(self) -> None:
        watch = health.MachineWatch(None)

        assert all(0 <= watch.report().cpu_percent < 10_000 for _ in range(100))


def test_resident_memory_is_counted_in_pages_of_this_machine(tmp_path: Path) -> None:
    put(tmp_path / "self" / "statm", "9000 1000 300 1 0 500 0\n")
    assert health.memory_resident_mb(tmp_path) == 1000 * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert health.memory_resident_mb() > 5
