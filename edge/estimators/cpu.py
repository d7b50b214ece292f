"""What MediaPipe's library needs of a processor."""

from __future__ import annotations

import platform
import re
from pathlib import Path

# MediaPipe from 1.0 on is compiled for ARMv8.2 and aborts, on its first picture, where one of these is missing:
# the names are the kernel's (arch/arm64/kernel/cpuinfo.c).
ARM_FEATURES = frozenset({"aes", "sha2", "crc32", "atomics", "asimdrdm", "asimddp", "asimdhp", "lrcpc"})

_CPUINFO = Path("/proc/cpuinfo")


def missing_features(cpuinfo: str | None = None, machine: str | None = None) -> frozenset[str]:
    """The features that MediaPipe needs and that not every core of this machine has; empty when it can run.

    cpuinfo: the text of /proc/cpuinfo. machine: as `uname -m` says. Default: this machine's. x86-64 has all it needs.
    """
    machine = platform.machine() if machine is None else machine
    if machine not in {"aarch64", "arm64"}:
        return frozenset()
    text = _CPUINFO.read_text() if cpuinfo is None else cpuinfo
    cores = [set(found.split()) for found in re.findall(r"^Features\s*:(.*)$", text, re.MULTILINE)]
    return ARM_FEATURES - set.intersection(*cores) if cores else ARM_FEATURES
