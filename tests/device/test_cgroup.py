from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from edge.device import cgroup

MB = 1_000_000
V1 = "9:name=systemd:/\n4:memory:/docker/1\n1:cpu:/\n"


class Machine:
    """Directories like /proc and /sys/fs/cgroup, and what is read from them."""

    def __init__(self, root: Path) -> None:
        self._proc, self._groups = root / "proc", root / "cgroup"
        (self._proc / "self").mkdir(parents=True)

    def runs_in(self, lines: str) -> None:
        (self._proc / "self" / "cgroup").write_text(lines)

    def group(self, path: str, files: Mapping[str, object]) -> None:
        directory = self._groups / path
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (directory / name).write_text(f"{text}\n")

    def memory(self, path: str, limit: object, used: int, inactive_file: int = 0) -> None:
        stat = f"anon 1\nfile 77\ninactive_file {inactive_file}\nactive_file 5"
        self.group(path, {"memory.max": limit, "memory.current": used, "memory.stat": stat})

    @property
    def room_mb(self) -> float | None:
        return cgroup.memory_room_mb(self._proc, self._groups)

    @property
    def cores(self) -> int | None:
        return cgroup.cores(self._proc, self._groups)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("lines", [None, V1, V1 + "0::/user\n", "0::/user\n"])
def test_without_groups_of_version_2_or_without_limits_nothing_is_limited(machine: Machine, lines: str | None) -> None:
    if lines is not None:
        machine.runs_in(lines)
    assert (machine.room_mb, machine.cores) == (None, None)
    machine.memory("user", "max", 5)
    machine.group("user", {"cpu.max": "max 100000"})
    assert (machine.room_mb, machine.cores) == (None, None)


@pytest.mark.parametrize("path", ["/", "/../../elsewhere.scope", "/of/the/host/that/is/not/seen"])
def test_a_container_finds_its_limits_at_the_root(machine: Machine, path: str) -> None:
    machine.runs_in(f"0::{path}\n")
    machine.memory("", 512 * MB, 200 * MB)
    machine.group("", {"cpu.max": "150000 100000"})

    assert (machine.room_mb, machine.cores) == (312, 2)


def test_the_narrowest_of_all_groups_around_the_process_counts(machine: Machine) -> None:
    machine.runs_in("0::/system.slice/edge-pose.service\n")
    machine.memory("system.slice", 1000 * MB, 900 * MB)
    machine.group("system.slice", {"cpu.max": "100000 100000"})
    machine.memory("system.slice/edge-pose.service", 500 * MB, 100 * MB)
    machine.group("system.slice/edge-pose.service", {"cpu.max": "400000 100000"})
    machine.memory("system.slice/other.service", 1 * MB, 1 * MB)

    assert (machine.room_mb, machine.cores) == (100, 1)


def test_cached_files_take_no_room_and_too_much_in_use_leaves_none(machine: Machine) -> None:
    machine.runs_in("0::/\n")
    machine.memory("", 500 * MB, 490 * MB, inactive_file=300 * MB)
    assert machine.room_mb == 310
    machine.memory("", 500 * MB, 510 * MB)
    assert machine.room_mb == 0


@pytest.mark.parametrize(("limit", "usable"), [("50000 100000", 1), ("200000 100000", 2), ("200001 100000", 3)])
def test_a_part_of_a_core_counts_as_one(machine: Machine, limit: str, usable: int) -> None:
    machine.runs_in("0::/\n")
    machine.group("", {"cpu.max": limit})

    assert machine.cores == usable
