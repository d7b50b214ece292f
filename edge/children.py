"""Child processes that do not outlive this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

# util-linux's setpriv does this, too, but since 2.41 (Debian 13) sets capabilities whatever it is asked for, which the
# service's filter of system calls forbids.
_UNTIL_ITS_PARENT_ENDS = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: prctl(2)
try:
    os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])
except OSError as error:
    sys.stderr.write(f"{sys.argv[2]}: {error.strerror}\\n")
os._exit(127)
"""


def ending_with_us(command: Sequence[str]) -> list[str]:
    """`command`, to be started from the main thread, so that the kernel ends it when this process has gone, however it
    went. Takes some 20 ms. Exit code 127: it can't be started."""
    return [sys.executable, "-I", "-S", "-c", _UNTIL_ITS_PARENT_ENDS, str(os.getpid()), *command]


def end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Ask it to end, and after `patience_s` do not ask any more."""
    process.terminate()
    try:
        process.wait(patience_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
