"""From MediaPipe's numbers to poses."""

from __future__ import annotations

import numpy as np
import pytest

from edge.estimators.landmarker import person_pixels, poses

COUNT = 33


def person(value: float, *, visibility: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray, None]:
    xyz = np.full((COUNT, 3), value, np.float32)
    return xyz, np.full(COUNT, visibility, np.float32), xyz.copy(), None


@pytest.mark.parametrize(
    ("shape", "reduced"),
    [
        ((480, 640), (120, 160)),
        ((1920, 1088), (160, 91)),
        ((481, 641), (96, 128)),
        ((160, 90), (160, 90)),
        ((161, 90), (80, 45)),
        ((1, 1), (1, 1)),
    ],
)
def test_a_masks_longest_side_is_160_or_less(shape: tuple[int, int], reduced: tuple[int, int]) -> None:
    step = -(-max(shape) // 160)
    middle = step // 2
    confidence = np.random.default_rng(1).random(shape, np.float32)
    mask = person_pixels(confidence)
    assert mask.shape == reduced
    assert mask.dtype == np.uint8
    assert mask.flags.c_contiguous
    for row, column in ((0, 0), (reduced[0] - 1, reduced[1] - 1), (reduced[0] // 2, reduced[1] // 3)):
        assert mask[row, column] == (confidence[middle + row * step, middle + column * step] > 0.5)


def test_a_mask_is_a_copy() -> None:
    confidence = np.zeros((120, 160), np.float32)
    mask = person_pixels(confidence)
    confidence[:] = 1.0
    assert not mask.any()


def test_the_best_seen_comes_first_and_visibility_stays_within_0_and_1() -> None:
    found = poses([person(0.1, visibility=0.3), person(0.2, visibility=1.00001)])
    assert [float(each.image_xyz[0, 0]) for each in found] == [np.float32(0.2), np.float32(0.1)]
    assert found[0].visibility.max() == 1.0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_people_with_something_that_is_no_number_are_left_out(broken: float) -> None:
    in_image, in_world, in_visibility = person(0.1), person(0.2), person(0.4)
    in_image[0][3, 1] = broken
    in_world[2][3, 1] = broken
    in_visibility[1][3] = broken
    assert len(poses([in_image, person(0.3), in_world, in_visibility])) == 1
