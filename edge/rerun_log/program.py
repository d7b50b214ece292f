"""Rerun's own binary, without its telemetry."""

from __future__ import annotations

import json
from pathlib import Path

import rerun_cli


def rerun_program() -> Path:
    """`rerun` on the PATH is a Python wrapper around it, and a signal to that leaves the real one alive."""
    return Path(str(rerun_cli.__file__)).parent / "rerun"


def without_analytics(scratch: Path) -> dict[str, str]:
    """Variables of the environment for a `rerun` that reports to nobody and keeps its settings in `scratch`."""
    settings = scratch / "rerun" / "analytics.json"
    settings.parent.mkdir(parents=True, exist_ok=True)
    # Without the two paths Rerun 0.41 takes the file for damaged, and writes a new one that allows everything.
    content = {
        "analytics_enabled": False,
        "analytics_id": "",
        "config_file_path": str(settings),
        "data_dir_path": str(scratch / "data"),
        "metadata": {},
    }
    settings.write_text(json.dumps(content))
    return {"XDG_CONFIG_HOME": str(scratch), "XDG_DATA_HOME": str(scratch)}
