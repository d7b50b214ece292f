"""The model store: a directory of verified bundles, and directories that came with the device.

A file is used only when it is the pinned model. It gets its name only once it is complete, verified and on the disk, so
that a fetch which is killed, cut off or run twice at once leaves either the right model or none. What has come of it
so far stays in `.fetch`, and the next fetch goes on from there.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge.errors import ModelError
from edge.estimators.models.catalog import BUNDLES, Bundle, Make, sha256_of

if TYPE_CHECKING:
    from edge.estimators.models.sources import Progress, Source

log = logging.getLogger(__name__)

STATE_DIR = Path("/var/lib/edge-pose")

PRELOADED_DIR = Path("/usr/share/edge-pose/models")
"""Where images of cards and containers carry models, also on a root that can't be written."""

_FETCH_DIR = ".fetch"
_LOCK_TIMEOUT_S = 900.0
_LOCK_POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Model:
    """A model file ready for use."""

    name: str
    path: Path
    sha256: str
    make: Make


def default_dir() -> Path:
    """systemd's state directory, else the machine's one where it can be written, else the user's cache."""
    if state := os.environ.get("STATE_DIRECTORY"):
        return Path(state.split(":")[0]) / "models"
    if os.access(STATE_DIR, os.W_OK):
        return STATE_DIR / "models"
    if not (cache := os.environ.get("XDG_CACHE_HOME", "")):
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError:  # a user without a home, as in containers
            cache = tempfile.gettempdir()
    return Path(cache) / "edge-pose" / "models"


class ModelStore:
    """Models by name: lite, full and heavy.

    directory: where models are kept and fetched into; default: `default_dir()`. preloaded: looked through when the
    directory doesn't have a model; never written. bundles: what there is, by name.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        preloaded: Sequence[Path] = (PRELOADED_DIR, STATE_DIR / "models"),
        bundles: Mapping[str, Bundle] = BUNDLES,
    ) -> None:
        self.directory = directory or default_dir()
        self._preloaded = tuple(preloaded)
        self._bundles = bundles

    def find(self, name: str) -> Model | None:
        """The model if it is here. name: lite, full or heavy, or the path of a .task file, taken as it is.

        Raises ModelError for a name or path that there is not, and for a file that is not what it says: it is left for
        the operator to look at, and never used.
        """
        bundle = self._bundles.get(name)
        if bundle is None:
            return _own_file(name)
        remedy = f"'edge-pose models fetch {name}' replaces it"
        path = self.directory / bundle.file_name
        try:
            if path.exists():
                return _verified(bundle, path, remedy)
        except OSError as error:
            raise ModelError(f"{path}: {error.strerror}; see pose.model_dir") from None
        for directory in self._preloaded:
            path = directory / bundle.file_name
            with contextlib.suppress(OSError):  # a directory that isn't for this user is none
                if path.exists():
                    return _verified(bundle, path, remedy)
        return None

    def ensure(self, name: str, *, source: str = "auto", progress: Progress | None = None) -> Model:
        """The model, fetched when it isn't here yet. source: see `sources.sources`. Raises ModelError."""
        return self.find(name) or self.fetch(name, source=source, progress=progress)

    def fetch(self, name: str, *, source: str = "auto", progress: Progress | None = None) -> Model:
        """Fetch the model unless the directory has it; a file that is not it is replaced. Raises ModelError."""
        bundle = self._bundles.get(name)
        if bundle is None:
            raise ModelError(f"model {name!r}: expected {', '.join(self._bundles)}; only those can be fetched")
        path = self.directory / bundle.file_name
        if model := self._whole(bundle, path):
            return model
        from edge.estimators.models.sources import sources  # noqa: PLC0415 - 40 ms; a start with its model needs none

        ways = sources(source)
        if not ways:
            raise _unfetched(bundle, self.directory, "pose.model_source is off")
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with _exclusive(self.directory):
                if model := self._whole(bundle, path):  # whoever held the lock has fetched it
                    return model
                scratch = self.directory / _FETCH_DIR
                scratch.mkdir(exist_ok=True)
                partial = scratch / f"{bundle.file_name}.part"
                try:
                    _bring(bundle, partial, ways, progress or (lambda arrived, expected: None))
                    _settle(partial, path)
                finally:
                    _tidy(scratch)
        except OSError as error:
            raise ModelError(
                f"model {name}: {self.directory} can't be written: {error.strerror}; see pose.model_dir"
            ) from None
        log.info("model %s: fetched and verified, kept as %s", name, path)
        return _verified(bundle, path, "")

    @staticmethod
    def _whole(bundle: Bundle, path: Path) -> Model | None:
        """The model at `path`, if it is there and not damaged."""
        try:
            return _verified(bundle, path, "") if path.exists() else None
        except (ModelError, OSError):
            return None


def _verified(bundle: Bundle, path: Path, remedy: str) -> Model:
    found = sha256_of(path)
    make = bundle.make_of(found)
    if make is None:
        raise ModelError(f"{path}: sha256 is {found}, expected {bundle.sha256}; {remedy}")
    return Model(bundle.name, path, found, make)


def _own_file(name: str) -> Model:
    path = Path(name)
    try:
        found = path.is_file()
    except OSError:  # a name that no file can have
        found = False
    if not found:
        raise ModelError(
            f"pose.model = {name!r}: expected {', '.join(BUNDLES)} or the path of a .task file; no such file"
        )
    return Model(path.stem, path, sha256_of(path), Make.OWN)


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One fetch at a time. The lock is the kernel's and on the directory itself: it ends with its process, however that
    ends, and leaves no file behind. Raises ModelError when it can't be had for too long."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        end_s = time.monotonic() + _LOCK_TIMEOUT_S
        told = False
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:  # held by another process
                if time.monotonic() > end_s:
                    raise ModelError(f"{directory}: another process has been fetching into it for too long") from None
                if not told:
                    log.info("another process is fetching into %s; waiting for it", directory)
                    told = True
                time.sleep(_LOCK_POLL_S)
            except OSError as error:
                # A file system without such locks, NFS for one. Two fetches at once may then spoil each other's partial
                # file, which its hash tells.
                log.debug("%s can't be locked: %s", directory, error)
                break
        yield
    finally:
        os.close(descriptor)


def _bring(bundle: Bundle, partial: Path, ways: Sequence[Source], progress: Progress) -> None:
    """Have `partial` become the right model by the first way that works. Raises ModelError with why none did."""
    failures = []
    for way in ways:
        try:
            resumed = partial.exists()
            way(bundle, partial, progress)
            if resumed and not _is_right(bundle, partial):
                log.info("model %s: what was here already does not fit; from the beginning", bundle.name)
                partial.unlink()
                way(bundle, partial, progress)
            if _is_right(bundle, partial):
                return
            reason = f"what arrived has sha256 {sha256_of(partial)}, expected {bundle.sha256}"
            partial.unlink()
        except ModelError as error:
            reason = " ".join(str(error).split())
        log.info("model %s: %s", bundle.name, reason)
        failures.append(reason)
    raise _unfetched(bundle, partial.parent.parent, "; ".join(failures))


def _unfetched(bundle: Bundle, directory: Path, why: str) -> ModelError:
    return ModelError(
        f"model {bundle.name} can't be fetched ({why}); "
        f"put {bundle.file_name} into {directory} by hand, its sha256 is {bundle.sha256}"
    )


def _tidy(scratch: Path) -> None:
    """Keep of a fetch only what the next one can go on from."""
    for entry in scratch.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        elif entry.suffix != ".part":
            entry.unlink()
    with contextlib.suppress(OSError):  # not empty
        scratch.rmdir()


def _is_right(bundle: Bundle, file: Path) -> bool:
    return bundle.make_of(sha256_of(file)) is not None


def _settle(partial: Path, path: Path) -> None:
    """Give the complete file its name, so that a power cut finds the whole of it there or nothing."""
    with partial.open("rb") as content:
        os.fsync(content.fileno())
    partial.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
