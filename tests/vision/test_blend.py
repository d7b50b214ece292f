"""The blend on trackers made up, and once on MediaPipe's own over the bundled clip."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cameras.stream import StreamSource
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.vision.blend import GONE_S, TrackerBlend
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests import conftest
from tests.conftest import CLIP

START_NS = 10_000_000_000
INTERVAL_NS = 33_333_333


def shifted(pose: Pose, by: float) -> Pose:
    """Image and world moved by as many frame widths and metres along all axes."""
    assert pose.world_m is not None
    moved = (pose.image_xyz + np.float32(by), pose.visibility.copy(), pose.world_m + np.float32(by), pose.mask)
    return Pose(pose.skeleton, *moved)


def walking(seq: int, *, bias: float = 0.0) -> Pose:
    """Somebody who crosses the picture at a third of it a second, as seen by a tracker that leans by `bias`."""
    return shifted(conftest.pose(x=0.2), seq / 90 + bias)


def blended(
    seen: Sequence[tuple[Pose, ...]], order: Sequence[int], *, interval_ns: int = INTERVAL_NS, max_people: int = 1
) -> list[tuple[Pose, ...]]:
    blend = TrackerBlend(max_people=max_people)
    return [
        blend.blend(tracker, START_NS + seq * interval_ns, poses)
        for seq, (tracker, poses) in enumerate(zip(order, seen, strict=True))
    ]


def errors(found: Sequence[tuple[Pose, ...]], truth: Callable[[int], Pose]) -> np.ndarray:
    """The mean signed distance of the image landmarks from the truth, a frame."""
    return np.array([float((poses[0].image_xyz - truth(seq).image_xyz).mean()) for seq, poses in enumerate(found)])


def same(one: Pose, other: Pose, within: float = 1e-5) -> bool:
    assert one.world_m is not None
    assert other.world_m is not None
    pairs = ((one.image_xyz, other.image_xyz), (one.world_m, other.world_m), (one.visibility, other.visibility))
    return all(np.allclose(a, b, atol=within) for a, b in pairs)


@pytest.mark.parametrize("tracker", [0, 1, 7])
def test_one_tracker_passes_as_it_is(tracker: int) -> None:
    seen = [(walking(seq),) for seq in range(20)]
    assert all(after is before for after, before in zip(blended(seen, [tracker] * 20), seen, strict=True))


def test_the_bias_of_two_trackers_is_taken_out_of_smooth_motion() -> None:
    order = [seq % 2 for seq in range(40)]
    seen = [(walking(seq, bias=0.01 if seq % 2 else -0.01),) for seq in range(40)]
    found = blended(seen, order)
    assert np.abs(errors(seen, walking)).min() > 0.009
    assert np.abs(errors(found, walking)[10:]).max() < 1e-3
    world = np.array([poses[0].world_m - walking(seq).world_m for seq, poses in enumerate(found)])  # type: ignore[operator]
    assert np.abs(world[10:]).max() < 1e-3


@pytest.mark.parametrize("trackers", [3, 4])
def test_more_trackers_come_to_their_common_mean(trackers: int) -> None:
    order = [seq % trackers for seq in range(80)]
    biases = np.linspace(-0.01, 0.01, trackers)
    seen = [(walking(seq, bias=float(biases[tracker])),) for seq, tracker in enumerate(order)]
    assert np.abs(errors(blended(seen, order), walking)[40:]).max() < 2e-3


@given(st.lists(st.integers(0, 2), min_size=40, max_size=40))
@settings(max_examples=40, deadline=None)
def test_in_any_order_nobody_is_moved_beyond_what_the_trackers_say(order: list[int]) -> None:
    biases = (-0.01, 0.0, 0.01)
    seen = [(walking(seq, bias=biases[tracker]),) for seq, tracker in enumerate(order)]
    assert np.abs(errors(blended(seen, order), walking)).max() <= 0.0101


@pytest.mark.parametrize("trackers", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_in_a_random_order_it_trembles_less(trackers: int, seed: int) -> None:
    order = list(np.random.default_rng(seed).integers(0, trackers, 120))
    biases = np.linspace(-0.01, 0.01, trackers)
    seen = [(walking(seq, bias=float(biases[tracker])),) for seq, tracker in enumerate(order)]
    before, after = (np.abs(np.diff(errors(each, walking), 2)).mean() for each in (seen, blended(seen, order)))
    assert after < 0.5 * before


def test_fast_motion_that_turns_is_left_as_it_was_found() -> None:
    def waving(seq: int, bias: float = 0.0) -> Pose:
        return shifted(conftest.pose(), float(0.04 * np.sin(seq * 1.1)) + bias)

    seen = [(waving(seq),) for seq in range(80)]
    found = blended(seen, [seq % 2 for seq in range(80)])
    # An equal say would be off by a quarter of the second difference over two frames, which is 0.03 here.
    assert np.abs(errors(found, waving)[20:]).max() < 0.012


@given(st.floats(-0.3, 0.3), st.integers(0, 2**31))
@settings(max_examples=25, deadline=None)
def test_where_a_person_stands_makes_no_difference(by: float, seed: int) -> None:
    noise = np.random.default_rng(seed).normal(0, 0.003, 24)
    order = [seq % 2 for seq in range(24)]
    seen = [(walking(seq, bias=float(noise[seq])),) for seq in range(24)]
    moved = blended([(shifted(poses[0], by),) for poses in seen], order)
    for (here,), (there,) in zip(blended(seen, order), moved, strict=True):
        assert same(shifted(here, by), there, within=1e-4)


FINITE = st.floats(-(2.0**100), 2.0**100, width=32)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(-(10**8), 10**9), st.lists(FINITE, max_size=3), st.booleans()),
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_whatever_comes_count_order_and_masks_are_kept_and_numbers_are_finite(
    steps: list[tuple[int, int, list[float], bool]],
) -> None:
    blend = TrackerBlend()
    now_ns = START_NS
    for tracker, after_ns, places, with_world in steps:
        now_ns += after_ns
        poses = []
        for place in places:
            pose = shifted(conftest.pose(mask=(4, 6)), np.float32(place))
            poses.append(
                Pose(pose.skeleton, pose.image_xyz, pose.visibility, pose.world_m if with_world else None, pose.mask)
            )
        found = blend.blend(tracker, now_ns, tuple(poses))
        assert [pose.mask is before.mask for pose, before in zip(found, poses, strict=True)] == [True] * len(poses)
        for pose, before in zip(found, poses, strict=True):  # a Pose takes finite numbers only
            assert (pose.world_m is None) == (before.world_m is None)
            assert np.abs(pose.image_xyz.astype(float) - before.image_xyz.astype(float)).max() <= 1.001
            assert 0 <= pose.visibility.min() <= pose.visibility.max() <= 1


def test_visibility_is_blended_and_stays_within_its_range() -> None:
    seen = []
    for seq in range(30):
        pose = conftest.pose()
        visibility = np.full_like(pose.visibility, 0.9 if seq % 2 else 1.0)
        seen.append((Pose(pose.skeleton, pose.image_xyz, visibility, pose.world_m),))
    found = blended(seen, [seq % 2 for seq in range(30)])
    assert np.abs(found[-1][0].visibility - 0.95).max() < 0.01
    assert max(float(poses[0].visibility.max()) for poses in found) <= 1


def test_visibility_that_has_risen_does_not_overshoot() -> None:
    seen = []
    for seq in range(20):
        pose = conftest.pose()
        seen.append((Pose(pose.skeleton, pose.image_xyz, np.full(33, min(seq / 10, 1.0), np.float32), pose.world_m),))
    found = blended(seen, [seq % 2 for seq in range(20)])
    assert max(float(poses[0].visibility.max()) for poses in found) <= 1


def test_two_frames_at_almost_the_same_time_throw_nobody_out_of_the_picture() -> None:
    blend = TrackerBlend()
    now_ns = START_NS
    for seq, (tracker, after_ns) in enumerate([(0, INTERVAL_NS), (1, INTERVAL_NS)] * 5 + [(0, 1), (0, 1)]):
        now_ns += after_ns
        blend.blend(tracker, now_ns, (walking(seq),))
    pose = walking(12)
    assert same(blend.blend(1, now_ns + INTERVAL_NS, (pose,))[0], pose, within=0.05)


def test_two_people_who_pass_each_other_are_not_mixed() -> None:
    def left(seq: int) -> Pose:
        return shifted(conftest.pose(x=0.2), seq / 150)

    def right(seq: int) -> Pose:
        return shifted(conftest.pose(x=0.7), -seq / 150)

    seen = [(left(seq), right(seq)) if seq % 3 else (right(seq), left(seq)) for seq in range(60)]
    found = blended(seen, [seq % 2 for seq in range(60)], max_people=2)
    for poses, before in zip(found, seen, strict=True):
        assert [same(pose, was, 2e-3) for pose, was in zip(poses, before, strict=True)] == [True, True]


def test_with_several_people_a_frame_in_which_some_are_missing_passes_as_it_is() -> None:
    seen = [(walking(seq, bias=0.01 if seq % 2 else -0.01),) for seq in range(20)]
    found = blended(seen, [seq % 2 for seq in range(20)], max_people=2)
    assert all(after is before for after, before in zip(found, seen, strict=True))


def test_two_people_are_blended_in_part() -> None:
    biases = [0.01 if seq % 2 else -0.01 for seq in range(40)]
    seen = [(walking(0, bias=bias), walking(45, bias=bias)) for bias in biases]
    found = blended(seen, [seq % 2 for seq in range(40)], max_people=2)
    off = np.abs(errors(found, lambda _: walking(0)))[10:]
    assert 0.006 < off.min() <= off.max() < 0.009


def test_who_is_new_gone_too_long_or_jumps_passes_as_found() -> None:
    blend = TrackerBlend()
    gap = round(GONE_S * 1e9) + INTERVAL_NS
    now_ns = START_NS
    for seq in range(10):
        now_ns += INTERVAL_NS
        found = blend.blend(seq % 2, now_ns, (walking(0, bias=0.01 * (seq % 2)),))
    assert not same(found[0], walking(0, bias=0.01))
    for pose, after_ns in ((walking(60), INTERVAL_NS), (walking(61), gap)):
        now_ns += after_ns
        (same_object,) = blend.blend(0, now_ns, (pose,))
        assert same_object is pose
    for seq in range(round(GONE_S * 1e9 / INTERVAL_NS) + 2):
        now_ns += INTERVAL_NS
        assert blend.blend(seq % 2, now_ns, ()) == ()
    back = walking(61, bias=0.01)
    assert blend.blend(1, now_ns + INTERVAL_NS, (back,))[0] is back


def test_a_frame_without_the_person_in_between_does_no_harm() -> None:
    seen = [() if seq in {20, 27} else (walking(seq, bias=0.01 if seq % 2 else -0.01),) for seq in range(40)]
    found = blended(seen, [seq % 2 for seq in range(40)])
    off = [abs(float((poses[0].image_xyz - walking(seq).image_xyz).mean())) for seq, poses in enumerate(found) if poses]
    assert max(off[10:]) < 1.5e-3


def test_a_tracker_that_has_gone_is_forgotten() -> None:
    order = [seq % 2 for seq in range(20)] + [0] * 20
    seen = [(walking(seq, bias=0.01 if tracker else -0.01),) for seq, tracker in enumerate(order)]
    assert blended(seen, order)[-1] is seen[-1]


@pytest.mark.parametrize(("fps", "changed"), [(30, True), (15, True), (10, True), (7.5, False), (5, False), (1, False)])
def test_off_where_the_rate_is_low(fps: float, *, changed: bool) -> None:
    seen = [(walking(0, bias=0.01 if seq % 2 else -0.01),) for seq in range(20)]
    found = blended(seen, [seq % 2 for seq in range(20)], interval_ns=round(1e9 / fps))
    assert any(after is not before for after, before in zip(found, seen, strict=True)) is changed


def test_time_that_goes_back_begins_anew() -> None:
    seen = [(walking(seq, bias=0.01 if seq % 2 else -0.01),) for seq in range(10)]
    blend = TrackerBlend()
    first = [blend.blend(seq % 2, START_NS + seq * INTERVAL_NS, poses) for seq, poses in enumerate(seen)]
    again = [blend.blend(seq % 2, START_NS + seq * INTERVAL_NS, poses) for seq, poses in enumerate(seen)]
    assert again[0] is seen[0]
    for one, other in zip(first[2:], again[2:], strict=True):
        assert same(one[0], other[0])


def test_what_was_given_is_not_changed() -> None:
    seen = [(walking(seq, bias=0.01 if seq % 2 else -0.01),) for seq in range(10)]
    before = [poses[0].image_xyz.copy() for poses in seen]
    found = blended(seen, [seq % 2 for seq in range(10)])
    assert all(np.array_equal(poses[0].image_xyz, was) for poses, was in zip(seen, before, strict=True))
    assert not found[-1][0].image_xyz.flags.writeable


@pytest.mark.integration
def test_two_landmarkers_look_like_one_on_the_bundled_clip(model: Path) -> None:
    with StreamSource("front", str(CLIP), pace="unlimited") as source:
        frames = [frame for _ in range(60) if (frame := source.read(1.0)) is not None]
    size = np.array([frames[0].rgb.width_px, frames[0].rgb.height_px])
    with MediaPipeEstimator(model, segmentation=False) as estimator:
        alone = [estimator.estimate(frame) for frame in frames]
    with (
        MediaPipeEstimator(model, segmentation=False) as first,
        MediaPipeEstimator(model, segmentation=False) as second,
    ):
        pool = [(first, second)[frame.seq % 2].estimate(frame) for frame in frames]
    blend = TrackerBlend()
    found = [blend.blend(frame.seq % 2, frame.monotonic_ns, poses) for frame, poses in zip(frames, pool, strict=True)]
    assert [len(poses) for poses in found] == [len(poses) for poses in alone]
    one, two, together = (
        np.array([poses[0].image_xyz[:, :2] * size for poses in each]) for each in (alone, pool, found)
    )

    def jitter(of: np.ndarray) -> float:
        return float(np.linalg.norm(np.diff(of, 2, axis=0), axis=-1).mean())

    assert MEDIAPIPE_POSE is found[0][0].skeleton
    assert jitter(two) > 1.4 * jitter(one)  # what there is to be done: 1.71 times
    assert jitter(together) <= jitter(one)  # 0.91 times
    assert np.linalg.norm(together - one, axis=-1).mean() <= 1.5  # 0.83 px
