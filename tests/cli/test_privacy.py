"""Nothing is sent to any address that the configuration doesn't name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import COMMAND

pytestmark = [pytest.mark.system]

# Root can make a network namespace, everybody else one inside a user namespace.
UNSHARE = ["unshare", "--net", *([] if os.getuid() == 0 else ["--user", "--map-root-user"])]


def isolated(*arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*UNSHARE, sys.executable, "-m", "tests.isolated", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


@pytest.mark.timeout(200)
def test_a_run_and_its_end_reach_nobody_but_the_configured_broker_and_hub(model: Path) -> None:
    # MediaPipe's own report would come a minute after the start, and another one at the end.
    seen = isolated("run", "75", str(model), timeout_s=180)
    assert seen.returncode == 0, seen.stderr
    watched = json.loads(seen.stdout.splitlines()[-1])
    assert watched["reached"] == watched["named"]
    assert watched["control"], "a look-up of a name would have been seen"


def test_the_demonstration_needs_no_network_once_the_model_is_here(model: Path, tmp_path: Path) -> None:
    demo = isolated("offline", *COMMAND, "demo", "--seconds", "5", "--out", str(tmp_path), timeout_s=60)
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.splitlines()[-1].startswith("demo: OK")
