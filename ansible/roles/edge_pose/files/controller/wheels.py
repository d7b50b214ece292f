"""Wheels of a lock, downloaded once and kept: with those here nothing is asked of the network."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement  # comes with ansible-core

# As old as the wheels may want the C library to be: edge/estimators/board_set.py refuses hosts with an older one.
_GLIBC_MINOR = 28


def downloaded(cache: Path, name: str, lock: str, *, architecture: str = "", python: str = "") -> Path:
    """The directory with the wheels that `lock` names for a processor and a Python such as 3.13; default: for here.

    Raises SystemExit with one line when they can't be had.
    """
    wanted = cache / f"{name}-{hashlib.sha256(lock.encode()).hexdigest()[:8]}"
    if wanted.exists():
        return wanted
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    pip += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    if architecture:
        tags = [*(f"_2_{minor}" for minor in range(_GLIBC_MINOR, 4, -1)), "2014", "2010", "1"]
        pip += [f"--platform=manylinux{tag}_{architecture}" for tag in tags]
        pip += [f"--python-version={python}", "--implementation=cp"]
        lock = _without_markers(lock, architecture, python)
    with complete_or_absent(cache / "new") as new, tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(lock)
        requirements.flush()
        command = [*pip, f"--dest={new}", f"--requirement={requirements.name}"]
        done = subprocess.run(command, check=False, text=True, stderr=subprocess.PIPE)
        if done.returncode:
            last = (done.stderr.strip() or "pip said nothing").splitlines()[-1]
            sys.exit(f"wheels of {name}: {last}; this machine needs pip and its package index, or them in {wanted}")
        new.rename(wanted)
    return wanted


@contextlib.contextmanager
def complete_or_absent(directory: Path) -> Iterator[Path]:
    """An empty directory that is gone again in the end, unless it got its final name by then."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def entries(lock: str) -> Iterator[tuple[Requirement, list[str]]]:
    """The requirements of a lock, each with its hashes."""
    for line in lock.replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            requirement, *hashes = (part.strip() for part in line.split("--hash="))
            yield Requirement(requirement), hashes


def entry(requirement: Requirement, hashes: list[str]) -> str:
    """One line of a lock."""
    return " --hash=".join([str(requirement), *hashes]) + "\n"


def _without_markers(lock: str, architecture: str, python: str) -> str:
    """The part of a lock that holds for a host. pip would ask its own Python and machine, whatever it downloads for."""
    host = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": architecture,
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "linux",
    }
    kept = ""
    for requirement, hashes in entries(lock):
        if requirement.marker is None or requirement.marker.evaluate(host):
            requirement.marker = None
            kept += entry(requirement, hashes)
    return kept
