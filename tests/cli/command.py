"""Running the command as its users do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import CLIP

COMMAND = [sys.executable, "-m", "edge"]


def edge_pose(*arguments: str, timeout_s: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run to the end; what it printed and its exit code."""
    surroundings = {key: value for key, value in os.environ.items() if not key.startswith("EDGE_POSE")}
    return subprocess.run(
        [*COMMAND, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**surroundings, **environment},
    )


def run_settings(*, source: str | Path = CLIP, **keys: object) -> list[str]:
    """`--set` arguments for camera `front` on the clip; keys with __ for the dots."""
    sets = {"camera.front.source": source, **{key.replace("__", "."): value for key, value in keys.items()}}
    return [
        part
        for key, value in sets.items()
        for part in ("--set", f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    ]
