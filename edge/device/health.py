"""How the machine is: memory, room on its disks, temperature."""

from __future__ import annotations

import contextlib
import re
import shutil
from pathlib import Path


def memory_available_mb(proc: Path = Path("/proc")) -> float | None:
    """Megabytes that programs can still have without swapping; None where the kernel doesn't say."""
    try:
        found = re.search(r"^MemAvailable:\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None


def free_mb(directory: Path) -> float:
    """Megabytes that can still be written into `directory`, or into where it will be made."""
    directory = directory.absolute()
    for place in (directory, *directory.parents):
        with contextlib.suppress(OSError):  # not there yet, or not for this user
            return shutil.disk_usage(place).free / 1e6
    raise AssertionError("the root directory is there")


def temperature_celsius(sys: Path = Path("/sys")) -> float | None:
    """The hottest sensor's, in degrees Celsius; None on machines without one."""
    readings = []
    for zone in (sys / "class" / "thermal").glob("thermal_zone*/temp"):
        try:
            readings.append(int(zone.read_text()) / 1000)
        except (OSError, ValueError):  # sensors that are switched off say so by an error
            continue
    return max(readings, default=None)


def throttled(sys: Path = Path("/sys")) -> bool | None:
    """Whether a Raspberry Pi runs slower now because of heat or a weak supply; None on other boards.

    Bits 0 to 3 of what `vcgencmd get_throttled` says: under-voltage, frequency capped, throttled, soft limit reached.
    """
    try:
        bits = int((sys / "devices/platform/soc/soc:firmware/get_throttled").read_text(), 16)
    except (OSError, ValueError):
        return None
    return bits & 0xF != 0
