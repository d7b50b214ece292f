"""How the machine is: memory, room on its disks, temperature."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from pathlib import Path

from edge.device import cgroup, clock
from edge.reports import MachineReport


def memory_available_mb(proc: Path = cgroup.PROC, groups: Path = cgroup.GROUPS) -> float | None:
    """Megabytes that this process can still have without swapping: what the machine has, or less where a container or
    service is limited. None where the kernel doesn't say."""
    rooms = [_machine_available_mb(proc), cgroup.memory_room_mb(proc, groups)]
    return min((room for room in rooms if room is not None), default=None)


def _machine_available_mb(proc: Path) -> float | None:
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


class MachineWatch:
    """Reports from time to time. disk: the directory whose disk matters, None for none."""

    def __init__(self, disk: Path | None) -> None:
        self._disk = disk
        self._clock = clock.ClockWatch()
        self._cpu_s, self._at_s = time.process_time(), time.monotonic()

    def report(self) -> MachineReport:
        cpu_s, at_s = time.process_time(), time.monotonic()
        passed_s = max(at_s - self._at_s, 1e-3)
        cpu_percent = 100 * (cpu_s - self._cpu_s) / passed_s
        self._cpu_s, self._at_s = cpu_s, at_s
        return MachineReport(
            cpu_percent=cpu_percent,
            memory_mb=memory_resident_mb(),
            memory_available_mb=memory_available_mb(),
            disk_free_mb=None if self._disk is None else free_mb(self._disk),
            temperature_celsius=temperature_celsius(),
            throttled=throttled(),
            clock=self._clock.report(),
        )


def memory_resident_mb(proc: Path = Path("/proc")) -> float:
    """Megabytes of memory that this process occupies: proc_pid_statm(5), second field."""
    pages = int((proc / "self" / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
