"""What a container or a service may have of the machine, by control groups of version 2.

Where there are none, or only those of version 1, nothing is known of limits.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator
from pathlib import Path

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def memory_room_mb(proc: Path = PROC, groups: Path = GROUPS) -> float | None:
    """Megabytes that this process can still have; None without a limit.

    That is the least of what its own group and those around it have left. Files that are cached and not in use count
    for nothing, as the kernel drops them first: a recording would fill any limit with them.
    """
    rooms = []
    for group in _of_this_process(proc, groups):
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            limit = int((group / "memory.max").read_text())
            unused = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
            used = int((group / "memory.current").read_text()) - (int(unused[1]) if unused else 0)
            rooms.append(max(0, limit - max(0, used)) / 1e6)
    return min(rooms, default=None)


def cores(proc: Path = PROC, groups: Path = GROUPS) -> int | None:
    """How many cores this process can keep busy, a part of one counted as one; None without a limit."""
    shares = []
    for group in _of_this_process(proc, groups):
        with contextlib.suppress(OSError, ValueError):
            quota_us, period_us = (group / "cpu.max").read_text().split()
            shares.append(math.ceil(int(quota_us) / int(period_us)))
    return min(shares, default=None)


def _of_this_process(proc: Path, groups: Path) -> Iterator[Path]:
    """Its own group and those around it, as far as they can be seen: a container's own is at the root, often."""
    try:
        found = re.search(r"^0::/(.*)$", (proc / "self" / "cgroup").read_text(), re.MULTILINE)
    except OSError:
        return
    if found is None:
        return
    own = Path(found[1])
    if ".." in own.parts:  # it was started outside of what can be seen here
        own = Path()
    for part in (own, *own.parents):
        yield groups / part
