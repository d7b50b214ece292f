"""What becomes of events when the disk gets full, on an ext4 as devices have it; tests/cli has it in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import full_disk
from tests.full_disk import Disk, Scene, fill, scene
from tests.system.images import run

pytestmark = [pytest.mark.machine, pytest.mark.timeout(300)]

_DISK_MIB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    image, mounted = tmp_path / "disk.img", tmp_path / "disk"
    mounted.mkdir()
    run(f"/usr/sbin/mke2fs -q -t ext4 -m 0 {image} {_DISK_MIB}m")
    run(f"mount -o loop {image} {mounted}")
    yield Disk(mounted, [], lambda process: mounted)
    run(f"umount {mounted}")


@pytest.fixture
def there(disk: Disk, tmp_path: Path) -> Iterator[Scene]:
    with scene(disk, tmp_path) as made:
        yield made


def test_events_count_on_a_disk_that_gets_full(model: Path, there: Scene) -> None:
    full_disk.gets_full(there)


def test_a_daemon_that_was_killed_goes_on_with_its_events_on_a_full_disk(model: Path, there: Scene) -> None:
    there.daemon.start()
    assert there.happens()
    fill(there.directory)
    there.broker.kill()
    for _ in range(3):
        assert there.happens(50)
        there.daemon.kill()
        there.daemon.start()
    assert there.happens(50)
    there.broker.start()
    there.hears_all()
    there.reports(durable=True)
    assert there.faults == 0


def test_a_full_disk_keeps_no_events_from_a_broker_that_is_there(model: Path, there: Scene) -> None:
    fill(there.disk.mounted)
    full_disk.is_full_and_gets_room(there)


def test_the_oldest_events_go_when_there_are_too_many_and_that_is_told(model: Path, there: Scene) -> None:
    full_disk.holds_no_more(there)
