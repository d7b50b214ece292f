from __future__ import annotations

import shutil
import subprocess

from edge.device import clock


def test_it_agrees_with_the_kernels_own_tool_where_that_is_installed() -> None:
    said = clock.synchronised()
    assert said in {True, False, None}
    if tool := shutil.which("adjtimex"):
        status = subprocess.run([tool, "--print"], check=True, capture_output=True, text=True).stdout
        assert said is ("return value = 5" not in status)
