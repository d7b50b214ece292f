"""What becomes of events when the disk gets full, on one in memory; tests/system/test_full_disk.py goes further."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import full_disk
from tests.full_disk import Disk, scene

pytestmark = [pytest.mark.integration, pytest.mark.system]

# Root can mount for one process, everybody else inside a user namespace.
_UNSHARE = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]
_MOUNT = """
mount -t tmpfs -o size=16m none "$0"
if [ -n "$1" ]; then cat /dev/zero > "$0/filler" 2>&1; fi
shift; exec "$@"
"""


def in_memory(directory: Path, *, full: bool = False) -> Disk:
    """full: from the beginning."""
    directory.mkdir()
    wrap = [*_UNSHARE, "sh", "-c", _MOUNT, str(directory), "full" if full else ""]
    return Disk(directory, wrap, lambda process: Path(f"/proc/{process}/root{directory}"))


def test_events_count_on_a_disk_that_gets_full(model: Path, tmp_path: Path) -> None:
    with scene(in_memory(tmp_path / "disk"), tmp_path) as there:
        full_disk.gets_full(there)


def test_a_full_disk_keeps_no_events_from_a_broker_that_is_there(model: Path, tmp_path: Path) -> None:
    with scene(in_memory(tmp_path / "disk", full=True), tmp_path) as there:
        full_disk.is_full_and_gets_room(there)
