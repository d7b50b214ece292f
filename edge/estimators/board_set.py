"""Which of the locked sets this machine can run.

It is asked before anything is installed, so it is a script of its own too, for any Python from 3.8 on:

    python3 edge/estimators/board_set.py    prints the set's name, as in requirements/NAME.txt, or says why none fits
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

CURRENT = "device"
"""MediaPipe 1.x: x86-64, and ARM from v8.2 on."""

ARMV8_0 = "device-armv8.0"
"""MediaPipe 0.10.18, the last one for ARM cores of the first generation: Raspberry Pi 4 and 3."""

# MediaPipe from 1.0 on is compiled for ARMv8.2 and aborts, on its first picture, where one of these is missing:
# the names are the kernel's (arch/arm64/kernel/cpuinfo.c).
ARM_FEATURES = frozenset({"aes", "sha2", "crc32", "atomics", "asimdrdm", "asimddp", "asimdhp", "lrcpc"})

# Both ends included. Rerun ends 3.10 and older; the last wheel of MediaPipe 0.10.18 is for 3.12.
_PYTHONS = {CURRENT: ((3, 11), (3, 13)), ARMV8_0: ((3, 11), (3, 12))}

_OLDEST_GLIBC = (2, 28)  # what the wheels are built against: manylinux_2_28

_CPUINFO = Path("/proc/cpuinfo")

_EXIT_CONFIG = 78


class NoSetFits(Exception):
    """This machine can't run edge-pose; the text is the reason and what would help, in one line."""


def missing_features(cpuinfo: str, machine: str) -> frozenset[str]:
    """The features that MediaPipe 1.x needs and that not every core has; empty when it can run.

    cpuinfo: the text of /proc/cpuinfo. machine: as `uname -m` says. x86-64 has all it needs.
    """
    if machine not in {"aarch64", "arm64"}:
        return frozenset()
    cores = [set(found.split()) for found in re.findall(r"^Features\s*:(.*)$", cpuinfo, re.MULTILINE)]
    return ARM_FEATURES - set.intersection(*cores) if cores else ARM_FEATURES


def missing_here() -> frozenset[str]:
    """`missing_features` of this machine."""
    return missing_features(_CPUINFO.read_text(), platform.machine())


def choose(
    *,
    machine: str,
    cpuinfo: str,
    python: tuple[int, int],
    is_64_bit: bool = True,
    glibc: tuple[int, int] = (2, 36),
) -> str:
    """CURRENT or ARMV8_0. Raises NoSetFits.

    machine, cpuinfo: as for `missing_features`. is_64_bit, glibc: what Python itself is built for; (0, 0) is no glibc.
    """
    if machine not in {"x86_64", "aarch64", "arm64"}:
        raise NoSetFits(f"processor {machine}: MediaPipe is made for x86_64 and 64-bit ARM (aarch64) only")
    if not is_64_bit:
        raise NoSetFits(f"this system's programs are 32-bit, though its kernel says {machine}: install a 64-bit system")
    if glibc < _OLDEST_GLIBC:
        found = "no glibc (musl?)" if glibc == (0, 0) else "glibc {}.{}".format(*glibc)
        raise NoSetFits(f"{found}: the packages need glibc {_text(_OLDEST_GLIBC)} or newer; or use the container")
    name = ARMV8_0 if missing_features(cpuinfo, machine) else CURRENT
    oldest, newest = _PYTHONS[name]
    if not oldest <= python <= newest:
        who, where = "edge-pose needs", ""
        if name == ARMV8_0:
            who, where = "on ARM cores older than v8.2 MediaPipe needs", " (Debian 12 has 3.11)"
        span = f"one from {_text(oldest)} to {_text(newest)}{where}"
        raise NoSetFits(f"Python {_text(python)}: {who} {span}; or use the container")
    return name


def _text(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def _glibc() -> tuple[int, int]:
    name, version = platform.libc_ver()
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if name == "glibc" and found else (0, 0)


def main() -> int:
    """Print this machine's set."""
    try:
        name = choose(
            machine=platform.machine(),
            cpuinfo=_CPUINFO.read_text(),
            python=sys.version_info[:2],
            is_64_bit=sys.maxsize > 2**32,
            glibc=_glibc(),
        )
    except NoSetFits as reason:
        sys.stderr.write(f"{reason}\n")
        return _EXIT_CONFIG
    sys.stdout.write(f"{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
