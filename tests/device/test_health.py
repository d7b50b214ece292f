from __future__ import annotations

from pathlib import Path

import pytest

from edge.device import health

THROTTLED = "devices/platform/soc/soc:firmware/get_throttled"


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_available_memory_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert health.memory_available_mb(tmp_path) is None
    put(tmp_path / "meminfo", "MemTotal:        8000000 kB\nMemFree:  1 kB\nMemAvailable:    1000000 kB\n")
    assert health.memory_available_mb(tmp_path) == 1024.0
    put(tmp_path / "meminfo", "MemTotal:        8000000 kB\n")
    assert health.memory_available_mb(tmp_path) is None
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
