"""How alike two poses in one picture are."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from edge.vision.pose import Pose
from edge.vision.skeleton import Skeleton

FloatArray = NDArray[np.float64]

# Twice the standard deviations with which people mark these keypoints, in the person's scale, as of COCO's keypoint
# evaluation (Ronchi and Perona, "Benchmarking and Error Diagnosis in Multi-Instance Pose Estimation", ICCV 2017).
# MediaPipe has more points than COCO: those of a face count as eyes, of a hand as wrists, of a foot as ankles.
_CONSTANTS = {
    "nose": 0.052,
    "eye": 0.050,
    "mouth": 0.070,
    "ear": 0.070,
    "shoulder": 0.158,
    "elbow": 0.144,
    "wrist": 0.124,
    "hip": 0.214,
    "knee": 0.174,
    "ankle": 0.178,
}
# The first whose name it ends with.
_LIKE = {"heel": "ankle", "foot_index": "ankle", "pinky": "wrist", "index": "wrist", "thumb": "wrist"}

_SCALE = 1.45
"""COCO's scale is the root of the area that a person covers, about 0.43 of the stature; the root of the mean square of
the keypoints' distances from their middle is 0.30."""

_FAINT = 0.05
"""A keypoint that is not seen at all still counts so much: its place is the estimator's guess."""


def scale_px(xy_px: FloatArray) -> float:
    """The person's scale in the picture: xy_px (K, 2), all keypoints, also those that are only guessed."""
    about = xy_px - xy_px.mean(axis=0)
    return _SCALE * float(np.sqrt((about * about).sum() / len(about)))


def similarity(
    a_px: FloatArray,
    b_px: FloatArray,
    *,
    a_seen: FloatArray,
    b_seen: FloatArray,
    scales_px: FloatArray,
    slack_px: FloatArray,
    skeleton: Skeleton,
) -> FloatArray:
    """(M, N) of 0..1, 1 for poses that are the same: object keypoint similarity, exp(-d² / (2 s² k²)) averaged over the
    keypoints with their visibility in both as the weight.

    a_px (M, K, 2), b_px (N, K, 2): in pixels, in which the picture's axes are alike. a_seen (M, K), b_seen (N, K):
    visibility 0..1. scales_px (M, N): s. slack_px (M, N): how far a keypoint may be elsewhere for other reasons; its
    square is added to s² k².
    """
    apart = a_px[:, None] - b_px[None]
    distance = (apart * apart).sum(axis=3)
    k = constants(skeleton)
    tolerance = (scales_px * scales_px)[:, :, None] * (k * k) + (slack_px * slack_px)[:, :, None]
    weights = (a_seen[:, None] * b_seen[None]) + _FAINT
    alike: FloatArray = (np.exp(-0.5 * distance / tolerance) * weights).sum(axis=2) / weights.sum(axis=2)
    return alike


@functools.cache
def constants(skeleton: Skeleton) -> FloatArray:
    """(K,): k of each keypoint."""
    return np.array([_constant(name) for name in skeleton.keypoints])


def _constant(keypoint: str) -> float:
    for part, like in _LIKE.items():
        if keypoint.endswith(part):
            return _CONSTANTS[like]
    return next(value for part, value in _CONSTANTS.items() if part in keypoint)


def in_pixels(pose: Pose, width_px: int, height_px: int) -> FloatArray:
    """(K, 2) float64."""
    return pose.image_xyz[:, :2].astype(np.float64) * (width_px, height_px)
