"""Child processes that do not outlive this one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence


def ending_with_us(command: Sequence[str]) -> list[str]:
    """`command`, to be started from the main thread, so that the kernel ends it when this process has gone, however it
    went. Where util-linux is missing it is just the command."""
    setpriv = shutil.which("setpriv")
    return [*([setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []), *command]


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Ask it to end, and after `patience_s` do not ask any more."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
