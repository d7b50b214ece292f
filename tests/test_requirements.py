"""What the locks promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOCKS = ("client", "viewer", "device", "device-armv8.0", "demo", "demo-armv8.0", "dev", "picamera2", "ansible", "build")


def lock(name: str) -> str:
    return (ROOT / "requirements" / f"{name}.txt").read_text()


def pins(name: str) -> dict[str, set[str]]:
    """Package -> its versions; more than one where they differ between versions of Python."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9_.-]+)==(\S+)", lock(name), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


@pytest.mark.parametrize("name", [name for name in LOCKS if re.match("device|demo|dev", name)])
def test_there_is_exactly_one_opencv_and_it_has_no_windows(name: str) -> None:
    assert [package for package in pins(name) if "opencv" in package] == ["opencv-python-headless"]


def test_what_is_installed_has_one_opencv_too() -> None:
    installed = {each.metadata["Name"].lower() for each in metadata.distributions()}
    assert {name for name in installed if "opencv" in name} == {"opencv-python-headless"}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes_and_none_an_address(name: str) -> None:
    entries = re.split(r"^(?=[a-z0-9_.-]+==)", lock(name), flags=re.MULTILINE)[1:]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in lock(name)


def test_the_smaller_sets_are_parts_of_the_larger_ones() -> None:
    assert (
        pins("client").items()
        <= pins("viewer").items()
        <= pins("device").items()
        <= pins("demo").items()
        <= pins("dev").items()
    )


def test_who_only_listens_installs_nothing_heavy() -> None:
    assert not pins("client").keys() & {"mediapipe", "rerun-sdk", "numpy", "opencv-python-headless", "av", "pyarrow"}


def test_old_cores_get_another_mediapipe_and_otherwise_the_same() -> None:
    for name in ("device", "demo"):
        old, current = pins(f"{name}-armv8.0"), pins(name)
        differs = {package for package in old.keys() | current.keys() if old.get(package) != current.get(package)}
        assert differs == {"mediapipe", "certifi", "protobuf"}, name
        assert old["mediapipe"] == {"0.10.18"}
        assert not old.keys() & {"jax", "jaxlib", "sentencepiece", "sounddevice"}


def test_every_declared_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[<>=~ ]", requirement)[0] for requirement in requirements}

    assert names(project["dependencies"]) <= pins("client").keys()
    for extra in ("viewer", "device"):
        assert names(project["optional-dependencies"][extra]) <= pins(extra).keys()


def link(venv: Path, *modules: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / "requirements" / "link-system-modules.py", venv, *modules]
    return subprocess.run(command, check=False, capture_output=True, text=True)


@pytest.mark.system
def test_a_module_of_the_system_is_linked_alone(tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run(["/usr/bin/python3", "-m", "venv", "--without-pip", venv], check=True)
    for _ in range(2):
        linked = link(venv, "systemd")
        assert (linked.returncode, linked.stderr) == (0, "")
    (packages,) = venv.glob("lib/python3*/site-packages")
    assert [path.name for path in packages.iterdir()] == ["systemd"]

    missing = link(venv, "systemd", "libfantasy")
    assert missing.returncode == 1
    assert (
        missing.stderr
        == "libfantasy: not in /usr/lib/python3/dist-packages; install the Debian package it belongs to\n"
    )
