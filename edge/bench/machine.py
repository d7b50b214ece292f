"""What the figures depend on: the machine and how it is at the moment."""

from __future__ import annotations

import os
import platform
import re
import resource
from dataclasses import dataclass
from pathlib import Path

from edge.device import board, health

BUSY = 0.1
"""The share of the machine that others may use before the figures are to be doubted."""
_BUSY_LOAD = 0.25


@dataclass(frozen=True, slots=True)
class Machine:
    """What does not change. cores: those that this process may use."""

    board: str
    processor: str
    cores: int
    cores_present: int
    memory_mb: float
    kernel: str


@dataclass(frozen=True, slots=True)
class Condition:
    """What does. temperature_celsius, throttled: None where the machine doesn't say. load: of the last minute."""

    temperature_celsius: float | None
    throttled: bool | None
    load: float


def machine(proc: Path = Path("/proc")) -> Machine:
    return Machine(
        board=board.name(),
        processor=processor(proc),
        cores=usable_cores(),
        cores_present=os.cpu_count() or 1,
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6,
        kernel=platform.release(),
    )


def condition() -> Condition:
    return Condition(health.temperature_celsius(), health.throttled(), os.getloadavg()[0])


def usable_cores() -> int:
    return len(os.sched_getaffinity(0))


def busy(now: Condition) -> bool:
    """Whether so much was going on in the last minute that the figures will suffer if it goes on."""
    return now.load > _BUSY_LOAD * (os.cpu_count() or 1)


class CpuWatch:
    """How much of the machine's processor time others take, from its making on."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._before = self._spent()

    def others(self) -> float | None:
        """The share of all cores' time, 0..1; what a hypervisor gives to other machines is part of it.

        What counts as ours is this process and those of its children that have ended. None where the kernel doesn't
        say, or too little time has passed.
        """
        if self._before is None or (now := self._spent()) is None:
            return None
        passed_s, busy_s, ours_s = (after - before for after, before in zip(now, self._before, strict=True))
        return min(max((busy_s - ours_s) / passed_s, 0.0), 1.0) if passed_s > 0.1 else None

    def _spent(self) -> tuple[float, float, float] | None:
        """Seconds since the machine's start that there were, on all cores, that were used, and that we used."""
        try:
            line = (self._proc / "stat").read_text().splitlines()[0]  # proc_stat(5): user nice system idle iowait ...
            ticks = [int(value) / os.sysconf("SC_CLK_TCK") for value in line.split()[1:9]]
        except (OSError, ValueError, IndexError):
            return None
        idle_s = sum(ticks[3:5])
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(ticks), sum(ticks) - idle_s, sum(each.ru_utime + each.ru_stime for each in used)


# Of ARM's own cores, the numbers in /proc/cpuinfo: Linux, arch/arm64/include/asm/cputype.h.
_ARM_PARTS = {
    0xD03: "Cortex-A53",
    0xD07: "Cortex-A57",
    0xD08: "Cortex-A72",
    0xD0B: "Cortex-A76",
    0xD42: "Cortex-A78AE",
}


def processor(proc: Path = Path("/proc")) -> str:
    """Its name, such as "Cortex-A76"; the architecture where the kernel gives neither a name nor a number we know."""
    try:
        text = (proc / "cpuinfo").read_text()
    except OSError:
        return platform.machine()
    if named := re.search(r"^model name\s*: (.+)$", text, re.MULTILINE):
        return named[1].strip()
    part = re.search(r"^CPU part\s*: (0x[0-9a-f]+)$", text, re.MULTILINE)
    return _ARM_PARTS.get(int(part[1], 16), platform.machine()) if part else platform.machine()
