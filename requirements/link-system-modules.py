#!/usr/bin/env python3
"""Make single modules of the system's Python visible in a virtual environment, by links.

    link-system-modules.py VENV MODULE...      for example: .venv systemd libcamera pykms prctl
                                              picamera2 pidng ljpegCompress

Some packages exist only as Debian's, built for the system's Python: bindings to the machine's own libraries. A virtual
environment with --system-site-packages would bring all others with them, such as a numpy 1 beside Rerun's numpy 2. This
way it has its own, locked packages and nothing else but the modules named. A module that is not installed is an error;
links that are right already stay.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ASK = """
from sysconfig import get_config_var, get_path
print(get_path("purelib"), get_config_var("SOABI"), get_config_var("MULTIARCH"), get_config_var("py_version_short"))
"""


def parts(module: str, places: list[Path], tag: str) -> list[Path]:
    """Its package or file, and what is compiled for it. tag: of the Python, such as cpython-311-x86_64-linux-gnu."""
    names = [module, f"{module}.py", f"{module}.{tag}.so", f"_{module}.{tag}.so"]
    return [path for path in (place / name for place in places for name in names) if path.exists()]


def main(venv: str, *modules: str) -> str | None:
    """None, or what is wrong in one line."""
    python = Path(venv, "bin", "python")
    packages, tag, multiarch, version = run(python, ASK).stdout.split()
    # Where Debian's Python looks, and where Debian's libcamera 0.3 was put.
    places = [Path("/usr/lib/python3/dist-packages"), Path(f"/usr/lib/{multiarch}/python{version}/site-packages")]
    for module in modules:
        found = parts(module, places, tag)
        if not found:
            return f"{module}: not in {places[0]}; install the Debian package it belongs to"
        for path in found:
            link = Path(packages) / path.name
            if link.exists() and not link.is_symlink():
                return f"{link}: is in the way, a package of that name is installed; uninstall it first"
            if not link.is_symlink() or link.readlink() != path:
                link.unlink(missing_ok=True)
                link.symlink_to(path)
    for module in modules:  # now that all of them are there
        importing = run(python, f"import {module}", check=False)
        if importing.returncode:
            reason = (importing.stderr.splitlines() or ["no reason given"])[-1]
            return f"{module}: of the system, can't be imported by {python}: {reason}"
    return None


def run(python: Path, program: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([python, "-c", program], check=check, capture_output=True, text=True)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: link-system-modules.py VENV MODULE...")
    sys.exit(main(*sys.argv[1:]))
