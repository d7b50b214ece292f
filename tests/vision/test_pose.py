from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.conftest import pose


@pytest.mark.parametrize("array", ["image_xyz", "visibility", "world_m", "mask"])
def test_nobody_can_change_a_pose_that_travels(array: str) -> None:
    with pytest.raises(ValueError, match="read-only"):
        getattr(pose(mask=(48, 64)), array)[0] = 0


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (
            "image_xyz",
            np.zeros((33, 2), np.float32),
            r"expected float32 of shape \(33, 3\), got float32 of shape \(33, 2\)",
        ),
        ("image_xyz", np.zeros((33, 3)), r"expected float32 of shape \(33, 3\), got float64"),
        (
            "visibility",
            np.zeros((33, 1), np.float32),
            r"expected float32 of shape \(33,\), got float32 of shape \(33, 1\)",
        ),
        (
            "world_m",
            np.zeros((32, 3), np.float32),
            r"expected float32 of shape \(33, 3\), got float32 of shape \(32, 3\)",
        ),
        ("mask", np.zeros((48, 64), np.float32), r"expected \(rows, columns\) uint8, got \(48, 64\) float32"),
        ("mask", np.zeros((48, 64, 1), np.uint8), r"expected \(rows, columns\) uint8, got \(48, 64, 1\) uint8"),
    ],
)
def test_an_array_of_the_wrong_kind_is_refused_by_name(name: str, array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=f"{name}: {message}"):
        replace(pose(), **{name: array})


@pytest.mark.parametrize("name", ["image_xyz", "visibility", "world_m"])
@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_no_nan_and_no_infinity_gets_into_a_pose(name: str, number: float) -> None:
    array = np.array(getattr(pose(), name))
    array[7] = number

    with pytest.raises(ValueError, match=f"{name}: expected finite numbers"):
        replace(pose(), **{name: array})


def test_the_score_is_the_mean_visibility() -> None:
    visibility = np.zeros(33, np.float32)
    visibility[:11] = 0.9

    assert replace(pose(), visibility=visibility).score == pytest.approx(0.3)
