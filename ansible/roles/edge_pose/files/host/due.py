"""What the service has not taken up yet: prints restart, reload or nothing.

usage: due.py UNIT START,... RELOAD,...   files and directories read at the start, and those that a reload reads

It goes by the files' times of change, and so sees what an interrupted run left behind, too. For any Python from 3.8 on.
"""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def due(unit: str, at_start: Sequence[str], at_reload: Sequence[str]) -> str:
    """restart, reload or nothing."""
    if max(_changed(Path(path)) for path in at_start) > _when(unit, "ActiveEnterTimestamp"):
        return "restart"
    # The unit's state changes at a reload, too.
    if max(_changed(Path(path)) for path in at_reload) > _when(unit, "StateChangeTimestamp"):
        return "reload"
    return "nothing"


def _when(unit: str, stamp: str) -> float:
    """Seconds since the epoch; 0 when that has never happened."""
    show = ["systemctl", "show", unit, "--timestamp=us+utc", "--value", "--property", stamp]
    text = subprocess.run(show, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    if text in {"", "n/a"}:
        return 0.0
    return dt.datetime.strptime(text.replace("UTC", "+0000"), "%a %Y-%m-%d %H:%M:%S.%f %z").timestamp()


def _changed(path: Path) -> float:
    """When a file, or something in a directory, changed last; a link is looked at itself. 0 when there is none."""
    inside = path.iterdir() if path.is_dir() and not path.is_symlink() else ()
    try:
        return max(each.lstat().st_ctime for each in (path, *inside))
    except FileNotFoundError:
        return 0.0


if __name__ == "__main__":
    unit, *groups = sys.argv[1:]
    print(due(unit, *(group.split(",") for group in groups)))
