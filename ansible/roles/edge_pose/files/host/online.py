"""Wait until the daemon says that its broker has it as online, and stays so for a moment.

usage: online.py RUNTIME_DIRECTORY TIMEOUT_S   where the daemon runs: on the host, or in its container

It asks no broker: one that names sessions after certificates would take the daemon's connection for this one. Exit
codes: 0 it is, or the configuration names no broker; 1 it is not, with one line that says why. For any Python from 3.8
on.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from pathlib import Path

# The broker says nothing of a client that has vanished before 5 s are over, its will delay.
_STABLE_S = 8.0
_TURN_S = 0.2


def why_not(directory: Path, timeout_s: float) -> str:
    """Empty once the daemon has been online for a moment, in one connection and with no reload. Else why not, when
    time is up."""
    end_s = time.monotonic() + timeout_s
    since_s, before, alive_then = 0.0, "", 0
    found = ""
    while time.monotonic() < end_s:
        content, alive = _read(directory)
        if content != before:
            since_s, before, alive_then = time.monotonic(), content, alive
        found = trouble(content, directory)
        # A daemon that was killed or hangs says what it said last, but gives no sign of life.
        if not found and time.monotonic() - since_s > _STABLE_S and alive != alive_then:
            return ""
        time.sleep(_TURN_S)
    return found or f"the broker has it, but not for {_STABLE_S:g} s on end with signs of life"


def trouble(content: str, directory: Path) -> str:
    """Why it is not online by what the daemon's file says, edge/device/status.py; empty when it is."""
    if not content:
        return f"{directory}/status.json can't be read: the daemon does not run, or is older than this playbook"
    try:
        told = json.loads(content)
        ready, summary, broker = told["ready"], str(told["summary"]), str(told["broker"]["state"])
    except (ValueError, KeyError, TypeError):
        return f"{directory}/status.json is not what this playbook can read: its daemon has another version"
    if ready is not True:
        return f"starting or reloading; {summary}"
    if summary.startswith("not reloaded"):
        return summary
    return "" if broker in {"online", "off"} else f"broker {broker}"


def _read(directory: Path) -> tuple[str, int]:
    """What it says, empty when there is nothing; and when the daemon last gave a sign of life, in ns."""
    content, alive = "", 0
    with contextlib.suppress(OSError):
        content = (directory / "status.json").read_text(encoding="utf-8", errors="replace")
        alive = (directory / "alive").stat().st_mtime_ns
    return content, alive


def main() -> int:
    directory, timeout_s = Path(sys.argv[1]), float(sys.argv[2])
    if why := why_not(directory, timeout_s):
        print(f"edge-pose is not online after {timeout_s:g} s: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
