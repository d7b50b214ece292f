"""What counted is there after a power cut; tests/measure/power_cuts.py cuts more often. See power_cut.py."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.power_cut import Guest, cut, guest, killed_process, new_disk

pytestmark = [pytest.mark.machine, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    with guest() as made:
        yield made


def test_what_counted_is_there_when_the_power_comes_back(machine: Guest, tmp_path: Path) -> None:
    disk = new_disk(tmp_path / "disk.img")

    first = cut(machine, disk, after_s=6 * random.random())
    second = cut(machine, disk, after_s=6 * random.random(), before=first)

    for each in (first, second):
        assert each.missing == []
        assert each.in_order
        assert each.sound == "ok"


def test_without_waiting_for_the_disk_a_power_cut_loses_events(machine: Guest, tmp_path: Path) -> None:
    """Which shows that the other test would see it. What has got to the disk by itself is a matter of luck."""
    for number in range(4):
        if cut(machine, new_disk(tmp_path / f"disk-{number}.img"), after_s=2, careless=True).missing:
            return
    pytest.fail("nothing was lost in four cuts")


@pytest.mark.parametrize("careless", [False, True])
def test_a_process_that_is_killed_loses_nothing_either_way(tmp_path: Path, careless: bool) -> None:  # noqa: FBT001
    killed = killed_process(tmp_path, after_s=0.5, careless=careless)

    assert killed.missing == []
    assert killed.in_order
    assert killed.sound == "ok"
