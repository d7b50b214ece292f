"""Who has a device open, as far as this user may look: proc_pid_fd(5)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OUR_CHILD = b"edge_pose_children"  # in the command of each process that holds a driver for us: edge/cameras/driver.py


@dataclass(frozen=True, slots=True)
class Holder:
    """A process. ours: it holds the device for an edge-pose that runs."""

    pid: int
    name: str
    ours: bool

    def __str__(self) -> str:
        return f"edge-pose (pid {self.pid})" if self.ours else f"{self.name} (pid {self.pid})"


def holders(device: Path, proc: Path = Path("/proc")) -> list[Holder]:
    """Other processes that have `device` open. Those of other users only root can see."""
    wanted = os.path.realpath(device)
    found = []
    for process in proc.glob("[0-9]*"):
        if int(process.name) != os.getpid() and wanted in _opened(process):
            with contextlib.suppress(OSError):
                command = (process / "cmdline").read_bytes()
                found.append(Holder(int(process.name), (process / "comm").read_text().strip(), _OUR_CHILD in command))
    return sorted(found, key=lambda holder: holder.pid)


def hidden_children(proc: Path = Path("/proc")) -> list[Holder]:
    """Processes that hold some driver for an edge-pose and can't be looked into: they are not dumpable, so only root
    sees what they have open, even if they are this user's own."""
    found = []
    for process in proc.glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if _OUR_CHILD in (process / "cmdline").read_bytes() and not _is_open(process):
                found.append(Holder(int(process.name), (process / "comm").read_text().strip(), ours=True))
    return sorted(found, key=lambda holder: holder.pid)


def _is_open(process: Path) -> bool:
    try:
        next((process / "fd").iterdir(), None)
    except OSError:
        return False
    return True


def _opened(process: Path) -> Iterator[str]:
    try:
        descriptors = list((process / "fd").iterdir())
    except OSError:  # another user's, or it has ended
        return
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            yield str(descriptor.readlink())
