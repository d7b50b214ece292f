"""What board this is, and how many of its cores are ours."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from edge.device import cgroup

_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")


def name() -> str:
    """The board's own name, such as "Raspberry Pi 5 Model B Rev 1.0", or the architecture where it has none."""
    try:
        # The device tree ends its strings with a zero byte.
        return _DEVICE_TREE_MODEL.read_bytes().rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.system()}"


def usable_cores(proc: Path = cgroup.PROC, groups: Path = cgroup.GROUPS) -> int:
    """How many cores this process may run on at once, by its affinity and by the limits of its container or service."""
    allowed = len(os.sched_getaffinity(0))
    limit = cgroup.cores(proc, groups)
    return allowed if limit is None else min(allowed, limit)
