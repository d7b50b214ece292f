"""Whether a crash may leave this process's memory, and the pictures in it, on a disk.

See core(5) and prctl(2), PR_SET_DUMPABLE. A process that is not dumpable leaves no core, neither in a file nor piped to
systemd-coredump. RLIMIT_CORE would not do: it says how large a file may become, and a pipe is written whatever it says.
Nor can other processes of the same user read its memory then; root can. What the process does itself goes on:
faulthandler's traceback, /proc/self, signs of life. Programs that it starts are dumpable again: execve(2).
"""

from __future__ import annotations

import ctypes
import os

from edge.errors import ConfigError, ConfigProblem
from edge.privacy import Mode, Shows, most_shown

_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def are_possible() -> bool:
    """Whether a crash of this process leaves a core, as far as the process has a say."""
    return _prctl(_PR_GET_DUMPABLE, 0) != 0  # 2 would be a core for root


class CoreDumps:
    """Forbids them while no picture may leave the process, and allows again what it has forbidden."""

    def __init__(self) -> None:
        self._forbidden = False

    def require(self, mode: Mode) -> None:
        """Forbid them, if the mode of privacy wants that: before the first picture comes. Raises ConfigError when the
        kernel does not let it."""
        if most_shown(mode) >= Shows.PICTURES or not are_possible():
            return
        if _prctl(_PR_SET_DUMPABLE, 0) or are_possible():
            why = os.strerror(ctypes.get_errno())
            problem = f"a crash would leave pictures in a core dump, which the kernel does not let be forbidden: {why}"
            raise ConfigError([ConfigProblem("config", "privacy.mode", mode, problem)])
        self._forbidden = True

    def allow(self, mode: Mode) -> None:
        """Allow what `require` has forbidden, if the mode of privacy no longer wants it."""
        if self._forbidden and most_shown(mode) >= Shows.PICTURES:
            _prctl(_PR_SET_DUMPABLE, 1)
            self._forbidden = False


def _prctl(option: int, value: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    return int(library.prctl(option, ctypes.c_ulong(value), *[ctypes.c_ulong(0)] * 3))
