"""Observations as chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge.lanes import Shown
from edge.rerun_log.observations import SceneSink, observation_parcel
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import VideoSink
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation, observe
from tests.conftest import frame, pose
from tests.rerun_log.reading import chunks, column, rows
from tests.rerun_log.scenes import Recorder, scene

pytestmark = pytest.mark.integration

POINTS_2D = "/camera/front/video/pose/points"
POINTS_3D = "/camera/front/person/pose/points"
MASK = "/camera/front/video/mask"
ANGLES = "/camera/front/angles"


def observation(seq: int, people: int, *, camera: str = "front", fps: float = 30.0) -> Observation:
    seen = frame(seq=seq, camera=camera, fps=fps)
    return observe(seen, [pose(x=0.2 + 0.3 * n, mask=(12, 16)) for n in range(people)])


def record(directory: Path, observations: list[Observation], **options: object) -> Path:
    about = scene(max_people=2, cameras=tuple({each.camera for each in observations}))
    recorder = Recorder(directory, about)
    SceneSink(mask=True, put=recorder.put).write(observations)
    return recorder.close()


def test_every_frame_has_a_row_in_every_entity_also_without_people(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(seq, people) for seq, people in enumerate((1, 0, 2))])
    assert rows(path) == {entity: [0, 1, 2] for entity in (POINTS_2D, POINTS_3D, MASK, ANGLES)}


def test_points_are_pixels_metres_and_empty_when_nobody_is_there(tmp_path: Path) -> None:
    observations = [observation(seq, people) for seq, people in enumerate((1, 0, 2))]
    found = {str(chunk.entity_path): chunk for chunk in chunks(record(tmp_path, observations)) if not chunk.is_static}
    flat = column(found[POINTS_2D], "positions")
    assert [len(each) for each in flat] == [33, 0, 66]
    person = observations[0].people[0]
    assert np.allclose(flat[0], person.pose.image_xyz[:, :2] * [64, 48])
    deep = column(found[POINTS_3D], "positions")
    assert np.allclose(deep[0], person.pose.world_m)
    assert [len(each) for each in deep] == [33, 0, 66]


def test_both_timelines_carry_the_frames_own_number_and_time(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(7, 1)])
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == POINTS_2D and not chunk.is_static]
    assert sorted(chunk.timeline_names) == ["frame_idx", "time"]
    assert column(chunk, "frame_idx") == [7]
    times = chunk.to_record_batch().column("time").cast("int64").to_pylist()
    assert times == [frame(seq=7).captured_ns]


def test_the_mask_says_which_person_a_pixel_belongs_to_and_is_stretched_over_the_picture() -> None:
    parcel = observation_parcel("front", [observation(seq, people) for seq, people in enumerate((0, 1, 2))], mask=True)
    (masks,) = [chunk for chunk in parcel.chunks if str(chunk.entity_path) == MASK]
    nobody, one, two = (np.array(each[0], np.uint8) for each in column(masks, "buffer"))
    assert nobody.tolist() == [0]
    assert one.tolist() == [1] * 16 * 12
    assert two.tolist() == [2] * 16 * 12  # the later person is in front where masks overlap
    sizes = [(each[0]["width"], each[0]["height"]) for each in column(masks, "SegmentationImage:format")]
    assert sizes == [(1, 1), (16, 12), (16, 12)]
    for (width, height), (scale,) in zip(sizes, column(masks, "scale"), strict=True):
        assert (width * scale[0], height * scale[1]) == (64, 48)


@pytest.mark.parametrize(
    ("estimated", "logged"),
    [
        (range(12), [0, 2, 4, 6, 8, 10]),
        (range(1, 12), [1, 2, 4, 6, 8, 10]),
        (range(0, 12, 3), [0, 3, 6, 9]),
        ([0, 3, 4, 5, 11], [0, 3, 4, 11]),
    ],
)
def test_of_each_picture_one_observation_is_logged_its_own_or_where_that_is_missing_the_next(
    estimated: Sequence[int], logged: list[int]
) -> None:
    parcels: list[Parcel] = []
    sink = SceneSink(mask=False, put=parcels.append)
    for seq in estimated:
        of_cameras = [observation(seq, 1, camera=camera, fps=60.0) for camera in ("front", "back")]
        sink.write([replace(each, shown_seq=seq // 2 * 2) for each in of_cameras])

    for camera in ("front", "back"):
        of_camera = [parcel for parcel in parcels if parcel.entity == f"/camera/{camera}"]
        assert [seq for parcel in of_camera for seq in column(parcel.chunks[0], "frame_idx")] == logged


def test_points_have_their_pictures_also_after_the_scene_has_missed_a_frame() -> None:
    pictures: list[Parcel] = []
    points: list[Parcel] = []
    shown, video, sink = Shown(30), VideoSink("jpeg", pictures.append), SceneSink(mask=False, put=points.append)
    for seq in range(40):
        seen = shown.marked(frame(seq=seq, fps=60.0))
        if seen.is_shown:
            video.write([seen])
        if seq:
            sink.write([observe(seen, [])])

    logged = [
        {seq for parcel in parcels for seq in column(parcel.chunks[0], "frame_idx")} for parcels in (pictures, points)
    ]
    assert [len(each) for each in logged] == [20, 20]
    assert len(logged[0] & logged[1]) == 19


def test_angles_are_one_vector_a_frame(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(0, 1), observation(1, 0)])
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == ANGLES and not chunk.is_static]
    somebody, nobody = column(chunk, "scalars")
    assert len(somebody) == len(nobody) == len(JOINTS)
    assert np.isnan(nobody).all()
