"""What board this is."""

from __future__ import annotations

import platform
from pathlib import Path

_DEVICE_TREE_MODEL = Path("/proc/device-tree/model")


def name() -> str:
    """The board's own name, such as "Raspberry Pi 5 Model B Rev 1.0", or the architecture where it has none."""
    try:
        # The device tree ends its strings with a zero byte.
        return _DEVICE_TREE_MODEL.read_bytes().rstrip(b"\0").decode()
    except (OSError, UnicodeDecodeError):
        return f"{platform.machine()} {platform.system()}"
