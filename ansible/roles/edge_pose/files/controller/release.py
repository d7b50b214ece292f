"""Put together, on the controller, what a host installs without any network: a release.

usage: release.py SET ARCHITECTURE PYTHON CHECKOUT CACHE   such as: device aarch64 3.13 ../edge-pose .cache/wheelhouse

It prints {"id": ..., "wheels": ..., "rest": ..., "changed": ...}: a directory with the locked wheels for that processor
and that Python, and one with what changes more often: the wheel of edge-pose, the lock, the unit. The id stands for all
of it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from wheels import complete_or_absent, downloaded

_PARTS = ("deploy/systemd/edge-pose.service", "requirements/link-system-modules.py")


def build(board_set: str, architecture: str, python: str, checkout: Path, cache: Path) -> dict[str, object]:
    """Returns what is printed."""
    lock = (checkout / f"requirements/{board_set}.txt").read_text()
    name = f"{board_set}-{architecture}-py{python}"
    wheels = downloaded(cache, name, lock, architecture=architecture, python=python)
    builder = downloaded(cache, "build", (checkout / "requirements/build.txt").read_text())
    with complete_or_absent(cache / "new") as new:
        wheel = _edge_pose(checkout, next(builder.glob("flit_core-*.whl")), new)
        (new / "edge-pose.txt").write_text(f"./{wheel.name} --hash=sha256:{_sha256(wheel)}\n")
        (new / "requirements.txt").write_text(lock)
        for part in _PARTS:
            shutil.copy(checkout / part, new)
        contents = [f"{_sha256(file)} {file.name}\n" for file in sorted(new.iterdir())]
        digest = hashlib.sha256("".join([*contents, wheels.name]).encode()).hexdigest()
        release = cache / f"{wheel.name.split('-')[1]}-{digest[:8]}"
        changed = not release.exists()
        if changed:
            new.rename(release)
    return {"id": release.name, "wheels": str(wheels), "rest": str(release), "changed": changed}


def _edge_pose(checkout: Path, flit: Path, directory: Path) -> Path:
    """The wheel of the checkout as it is: the same bytes for the same files."""
    script = "import sys; from flit_core.buildapi import build_wheel; print(build_wheel(sys.argv[1]))"
    settings = {"PYTHONPATH": str(flit), "SOURCE_DATE_EPOCH": "1000000000", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", script, str(directory)]
    done = subprocess.run(
        command, check=True, cwd=checkout, env={**os.environ, **settings}, text=True, stdout=subprocess.PIPE
    )
    return directory / done.stdout.strip()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main() -> None:
    """Several hosts may want the same at once: the second one finds what the first one made."""
    board_set, architecture, python, checkout, cache_dir = sys.argv[1:]
    cache = Path(cache_dir).resolve()
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        print(json.dumps(build(board_set, architecture, python, Path(checkout).resolve(), cache)))


if __name__ == "__main__":
    main()
