"""A region of interest: what is found in it is what is found in the cropped picture, and it is where it is in the whole
one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from edge.cameras.oriented import shown
from edge.estimators.landmarker import person_pixels
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.region import RegionEstimator, whole_mask
from edge.vision.frame import Frame, Picture, PixelLayout
from edge.vision.geometry import WHOLE, Part, View, Window
from edge.vision.kinematics import VISIBLE, bounding_box
from edge.vision.pose import Pose
from tests.conftest import CLIP, frame, pose
from tests.estimators.test_mediapipe import TWO_PEOPLE, frames
from tests.vision.test_geometry import parts

SIDES = st.integers(2, 900)


class Fixed:
    """A PoseEstimator that finds the same people everywhere, and keeps what it was shown."""

    def __init__(self, poses: Sequence[Pose]) -> None:
        self._poses = tuple(poses)
        self.entered = 0
        self.shown: list[Frame] = []

    def __enter__(self) -> Self:
        self.entered += 1
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.entered -= 1

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        self.shown.append(frame)
        return self._poses


@given(parts(), SIDES, SIDES)
@settings(deadline=None)
def test_keypoints_are_where_they_are_in_the_whole_picture(region: Part, width_px: int, height_px: int) -> None:
    found, window = pose(x=0.3), region.window(width_px, height_px)
    (placed,) = RegionEstimator(Fixed([found]), region).estimate(frame(width_px=width_px, height_px=height_px))

    in_region_px = found.image_xyz * [window.width_px, window.height_px, window.width_px]
    in_whole_px = placed.image_xyz * [width_px, height_px, width_px]
    assert np.allclose(in_whole_px, in_region_px + np.array([window.left, window.top, 0]), atol=1e-3)
    assert placed.visibility is found.visibility
    assert placed.world_m is found.world_m
    assert placed.mask is None


def test_it_sees_the_pixels_of_the_region_and_nothing_else() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    whole = replace(
        frame(), rgb=Picture(pixels, PixelLayout.RGB), video=Picture(np.zeros((72, 64), np.uint8), PixelLayout.I420)
    )
    inner = Fixed([])
    with RegionEstimator(inner, Part(0.25, 0.5, 0.5, 0.25)) as estimator:
        assert inner.entered == 1
        assert estimator.estimate(whole) == ()
    assert inner.entered == 0
    (seen,) = inner.shown
    assert np.array_equal(seen.rgb.pixels, pixels[24:36, 16:48])
    assert seen.for_people is seen.rgb
    assert (seen.seq, seen.monotonic_ns) == (whole.seq, whole.monotonic_ns)


@given(parts(), SIDES, SIDES, st.integers(0, 1000))
@settings(deadline=None)
def test_a_mask_is_laid_over_the_whole_picture_as_if_it_had_been_found_there(
    region: Part, width_px: int, height_px: int, seed: int
) -> None:
    window = region.window(width_px, height_px)
    step = -(-max(width_px, height_px) // 160)
    assume(min(window.width_px, window.height_px) >= 8 * step)  # of less a mask has too few pixels to compare
    confidence = np.zeros((height_px, width_px), np.float32)
    inside = blob(window, seed)
    confidence[window.top : window.bottom, window.left : window.right] = inside
    expected = person_pixels(confidence)
    found = whole_mask(person_pixels(inside), window, width_px, height_px)

    assert found.shape == expected.shape
    # Both are sampled, at other pixels: they may differ at the blob's edge.
    assert np.count_nonzero(found != expected) <= perimeter(expected) + 4


def blob(window: Window, seed: int) -> np.ndarray:
    """An ellipse in the window."""
    chance = np.random.default_rng(seed)
    x, y = np.meshgrid(np.arange(window.width_px) + 0.5, np.arange(window.height_px) + 0.5)
    middle = chance.uniform(0.2, 0.8, 2) * [window.width_px, window.height_px]
    radii = chance.uniform(0.1, 0.6, 2) * [window.width_px, window.height_px]
    return (((x - middle[0]) / radii[0]) ** 2 + ((y - middle[1]) / radii[1]) ** 2 < 1).astype(np.float32)


def perimeter(mask: np.ndarray) -> int:
    ringed = np.pad(mask, 1).astype(int)
    return int(np.abs(np.diff(ringed, axis=0)).sum() + np.abs(np.diff(ringed, axis=1)).sum())


@given(SIDES, SIDES, st.integers(0, 1000))
@settings(deadline=None)
def test_a_mask_of_the_whole_picture_stays_as_it_is(width_px: int, height_px: int, seed: int) -> None:
    window = WHOLE.window(width_px, height_px)
    mask = person_pixels(blob(window, seed))

    assert np.array_equal(whole_mask(mask, window, width_px, height_px), mask)


@given(parts(), SIDES, SIDES)
@settings(deadline=None)
def test_outside_the_region_nobody_has_a_mask(region: Part, width_px: int, height_px: int) -> None:
    window = region.window(width_px, height_px)
    mask = whole_mask(np.ones((3, 5), np.uint8), window, width_px, height_px)
    rows, columns = np.indices(mask.shape)
    step = -(-max(width_px, height_px) // 160)
    x, y = columns * step + step // 2, rows * step + step // 2

    inside = (x >= window.left) & (x < window.right) & (y >= window.top) & (y < window.bottom)
    assert np.array_equal(mask.astype(bool), inside)


AROUND = Part(0.25, 0.15, 0.45, 0.75)
"""Of the clip: all of the person and some of the room."""


@pytest.mark.integration
def test_who_is_in_the_region_is_found_as_in_the_cropped_picture(model: Path) -> None:
    clip = list(frames(CLIP, 20))
    cropped = [replace(each, rgb=shown(each.rgb, View(crop=AROUND)), video=None) for each in clip]
    with MediaPipeEstimator(model) as alone, RegionEstimator(MediaPipeEstimator(model), AROUND) as estimator:
        pairs = [(*alone.estimate(part), *estimator.estimate(each)) for part, each in zip(cropped, clip, strict=True)]
    window = AROUND.window(640, 480)
    for in_part, in_whole in pairs:
        at_px = in_whole.image_xyz * [640, 480, 640]
        part_px = in_part.image_xyz * [window.width_px, window.height_px, window.width_px]
        assert np.allclose(at_px, part_px + np.array([window.left, window.top, 0]), atol=1e-2)
        assert np.array_equal(in_whole.visibility, in_part.visibility)
        assert np.array_equal(in_whole.world_m, in_part.world_m)


@pytest.mark.integration
def test_who_is_found_in_the_region_is_where_the_whole_picture_has_them(model: Path) -> None:
    """Image coordinates to 2 % of the picture, depth on the same scale, and a mask on the person."""
    clip = list(frames(CLIP, 20))
    with MediaPipeEstimator(model) as everywhere, RegionEstimator(MediaPipeEstimator(model), AROUND) as estimator:
        for each in clip:
            (expected,), (found,) = everywhere.estimate(each), estimator.estimate(each)
            seen = (expected.visibility > VISIBLE) & (found.visibility > VISIBLE)
            assert np.abs(found.image_xyz - expected.image_xyz)[seen, :2].mean() < 0.02
            spread = found.image_xyz[:, 2].std() / expected.image_xyz[:, 2].std()
            assert 0.7 < spread < 1.4, "depth is in widths of the whole picture"
            assert found.mask is not None
            assert expected.mask is not None
            assert found.mask.shape == expected.mask.shape == (120, 160)
            both = np.count_nonzero(found.mask & expected.mask) / np.count_nonzero(found.mask | expected.mask)
            assert both > 0.85


@pytest.mark.integration
def test_nobody_is_found_outside_the_region(model: Path) -> None:
    aside = Part(0.65, 0.0, 0.35, 1.0)
    with MediaPipeEstimator(model) as everywhere, RegionEstimator(MediaPipeEstimator(model), aside) as estimator:
        for each in frames(CLIP, 5):
            assert len(everywhere.estimate(each)) == 1
            assert estimator.estimate(each) == ()


@pytest.mark.integration
def test_of_two_people_the_one_in_the_region_is_found(model: Path) -> None:
    lower = Part(0.4, 0.42, 0.6, 0.58)
    both = MediaPipeEstimator(model, max_people=2, segmentation=False)
    in_region = RegionEstimator(MediaPipeEstimator(model, max_people=2), lower)
    with both, in_region:
        for each in list(frames(TWO_PEOPLE, 24))[10:]:
            everybody = [bounding_box(person) for person in both.estimate(each)]
            found = in_region.estimate(each)
            assert len(found) == 1
            box = bounding_box(found[0])
            nearest = min(abs(other.left - box.left) + abs(other.top - box.top) for other in everybody)
            assert nearest < 0.05
            assert box.left > 0.4
            assert box.top > 0.4
            mask = found[0].mask
            assert mask is not None
            assert mask.shape == (160, 91)
            rows, columns = np.nonzero(mask)
            assert columns.min() >= 0.4 * 91 - 1
            assert rows.min() >= 0.42 * 160 - 1
            visible = found[0].image_xyz[found[0].visibility > 0.9]
            inside = mask[(visible[:, 1] * 160).astype(int).clip(0, 159), (visible[:, 0] * 91).astype(int).clip(0, 90)]
            assert inside.mean() > 0.8, "its mask is where its keypoints are"
