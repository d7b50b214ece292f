"""Observations as chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.config import RerunConfig
from edge.lanes import Shown
from edge.rerun_log.observations import SceneSink, observation_parcel, outlines
from edge.rerun_log.parcel import Parcel
from edge.rerun_log.video import VideoSink
from edge.stats import Stats
from edge.vision.frame import UInt8Array
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation
from edge.vision.placement import standing_m
from edge.vision.posture import Posture, PostureReading
from edge.vision.zones import Line, Zone
from tests.conftest import frame, observe, pose
from tests.rerun_log.reading import chunks, column, rows
from tests.rerun_log.scenes import Recorder, scene

pytestmark = pytest.mark.integration

POINTS_2D = "/camera/front/video/pose/points"
NAMES = "/camera/front/video/pose/names"
POINTS_3D = "/camera/front/person/pose/points"
MASK = "/camera/front/video/mask"
ANGLES = "/camera/front/angles"


def observation(seq: int, people: int, *, camera: str = "front", fps: float = 30.0) -> Observation:
    seen = frame(seq=seq, camera=camera, fps=fps)
    return observe(seen, [pose(x=0.2 + 0.3 * n, mask=(12, 16)) for n in range(people)])


def record(directory: Path, observations: list[Observation], **options: object) -> Path:
    about = scene(max_people=2, cameras=tuple({each.camera for each in observations}))
    recorder = Recorder(directory, about)
    SceneSink(mask="image", people=2, put=recorder.put).write(observations)
    return recorder.close()


def test_every_frame_has_a_row_in_every_entity_also_without_people(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(seq, people) for seq, people in enumerate((1, 0, 2))])
    assert rows(path) == {entity: [0, 1, 2] for entity in (POINTS_2D, POINTS_3D, NAMES, MASK, ANGLES)}


def test_points_are_pixels_metres_and_empty_when_nobody_is_there(tmp_path: Path) -> None:
    observations = [observation(seq, people) for seq, people in enumerate((1, 0, 2))]
    found = {str(chunk.entity_path): chunk for chunk in chunks(record(tmp_path, observations)) if not chunk.is_static}
    flat = column(found[POINTS_2D], "positions")
    assert [len(each) for each in flat] == [33, 0, 66]
    person = observations[0].people[0]
    assert np.allclose(flat[0], person.pose.image_xyz[:, :2] * [64, 48])
    deep = column(found[POINTS_3D], "positions")
    assert np.allclose(deep[0], standing_m(person.pose, 64, 48))
    assert [len(each) for each in deep] == [33, 0, 66]


def test_both_timelines_carry_the_frames_own_number_and_time(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(7, 1)])
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == POINTS_2D and not chunk.is_static]
    assert sorted(chunk.timeline_names) == ["frame_idx", "time"]
    assert column(chunk, "frame_idx") == [7]
    times = chunk.to_record_batch().column("time").cast("int64").to_pylist()
    assert times == [frame(seq=7).captured_ns]


def test_the_mask_says_which_person_a_pixel_belongs_to_and_is_stretched_over_the_picture() -> None:
    parcel = observation_parcel(
        "front", [observation(seq, people) for seq, people in enumerate((0, 1, 2))], mask="image", people=2
    )
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
    sink = SceneSink(mask="off", people=1, put=parcels.append)
    for seq in estimated:
        of_cameras = [observation(seq, 1, camera=camera, fps=60.0) for camera in ("front", "back")]
        sink.write([replace(each, shown_seq=seq // 2 * 2) for each in of_cameras])

    for camera in ("front", "back"):
        of_camera = [parcel for parcel in parcels if parcel.entity == f"/camera/{camera}"]
        assert [seq for parcel in of_camera for seq in column(parcel.chunks[0], "frame_idx")] == logged


def test_points_have_their_pictures_also_after_the_scene_has_missed_a_frame() -> None:
    pictures: list[Parcel] = []
    points: list[Parcel] = []
    shown, video, sink = (
        Shown(30),
        VideoSink(RerunConfig(video="jpeg"), pictures.append, Stats([])),
        SceneSink(mask="off", people=1, put=points.append),
    )
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


def test_angles_are_one_vector_a_frame_with_a_place_for_each_person(tmp_path: Path) -> None:
    path = record(tmp_path, [observation(seq, people) for seq, people in enumerate((2, 1, 0))])
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == ANGLES and not chunk.is_static]
    two, one, nobody = np.array(column(chunk, "scalars")).reshape(3, 2, len(JOINTS))
    assert np.isfinite(two).all()
    assert np.isfinite(one[0]).all()
    assert np.isnan(one[1]).all()
    assert np.isnan(nobody).all()


def test_each_keypoint_has_the_class_of_its_persons_place_which_stays_theirs() -> None:
    seen = observation(0, 2)
    late = replace(seen, people=tuple(replace(person, person_id=person.person_id + 1) for person in seen.people))
    parcel = observation_parcel("front", [observation(0, 2), late, observation(2, 0)], mask="image", people=2)
    for chunk in parcel.chunks[:2]:
        assert column(chunk, "class_ids") == [[1] * 33 + [2] * 33, [2] * 33 + [1] * 33, []]
    (masks,) = [chunk for chunk in parcel.chunks if str(chunk.entity_path) == MASK]
    assert set(column(masks, "buffer")[1][0]) == {1}, "of the one in front"


def test_names_hang_above_the_heads_and_say_who_it_is_and_how() -> None:
    seen = observation(0, 2)
    sits = replace(seen.people[1], person_id=17, posture=PostureReading(Posture.SITTING, 0.9, 0))
    (names,) = [
        chunk
        for chunk in observation_parcel(
            "front", [replace(seen, people=(seen.people[0], sits))], mask="off", people=2
        ).chunks
        if str(chunk.entity_path) == NAMES
    ]
    (points,), (classes,), (labels,) = (column(names, each) for each in ("positions", "class_ids", "labels"))
    assert classes == [1, 2]
    assert labels == ["1", "17 sitting"]
    for (x, y), person in zip(points, seen.people, strict=True):
        assert person.box.left * 64 <= x <= person.box.right * 64
        assert 0 <= y <= person.box.top * 48


def test_zones_and_lines_are_drawn_now_and_then_in_the_pictures_pixels() -> None:
    parcels: list[Parcel] = []
    door = Zone("door", ((0.0, 0.5), (0.5, 0.5), (0.5, 1.0)))
    entrance = Line("entrance", (0.25, 1.0), (0.75, 1.0))
    sink = SceneSink(mask="off", people=1, put=parcels.append, zones={"front": [door]}, lines={"front": [entrance]})
    for seq in range(70):
        sink.write([observation(seq, 0), observation(seq, 0, camera="back")])
    drawn = [parcel for parcel in parcels if parcel.entity.endswith("/video/zones")]
    assert [parcel.entity for parcel in drawn] == ["/camera/front/video/zones"] * 2
    (strips,), (labels,) = column(drawn[0].chunks[0], "strips"), column(drawn[0].chunks[0], "labels")
    assert labels == ["door", "entrance"]
    assert strips[0] == [[0, 24], [32, 24], [32, 48], [0, 24]]
    assert strips[1][:2] == [[16, 48], [48, 48]]


def test_contours_are_rows_of_closed_lines(tmp_path: Path) -> None:
    observations = [observation(seq, people) for seq, people in enumerate((0, 2, 1))]
    parcel = observation_parcel("front", observations, mask="contour", people=2)
    (masks,) = [chunk for chunk in parcel.chunks if str(chunk.entity_path) == MASK]
    assert [len(each) for each in column(masks, "strips")] == [0, 2, 1]
    assert column(masks, "class_ids") == [[], [1, 2], [1]]
    nobody = observation_parcel("front", observations[:1], mask="contour", people=2)
    assert [len(each) for each in column(nobody.chunks[-1], "strips")] == [0]


def test_where_there_are_no_pictures_their_edge_is_logged_now_and_then_and_when_it_changes() -> None:
    parcels: list[Parcel] = []
    sink = SceneSink(mask="off", people=1, put=parcels.append, outline=True)
    for seq in range(150):
        sink.write([observation(seq, 0)])
    larger = replace(observation(150, 0), width_px=128)
    sink.write([larger])
    edges = [parcel for parcel in parcels if parcel.entity == "/camera/front/video"]
    assert [column(parcel.chunks[0], "frame_idx") for parcel in edges] == [[0], [60], [120], [150]]
    ((line,),) = column(edges[-1].chunks[0], "strips")
    assert line == [[0, 0], [128, 0], [128, 48], [0, 48], [0, 0]]


@given(
    arrays(np.uint8, st.tuples(st.integers(4, 40), st.integers(4, 40)), elements=st.integers(0, 1)),
    st.integers(1, 2000),
    st.integers(1, 2000),
)
def test_an_outline_is_closed_and_inside_the_picture(mask: UInt8Array, width_px: int, height_px: int) -> None:
    for line in outlines(mask, width_px, height_px):
        assert line.dtype == np.float32
        assert len(line) >= 4
        assert (line[0] == line[-1]).all()
        assert (line >= 0).all()
        assert (line <= [width_px, height_px]).all()


def test_an_outline_runs_along_the_edge_and_specks_have_none() -> None:
    mask = np.zeros((120, 160), np.uint8)
    mask[30:90, 40:80] = 1
    mask[5, 5] = 1
    (line,) = outlines(mask, 640, 480)
    assert sorted({(x, y) for x, y in line.tolist()}) == [(162, 122), (162, 358), (318, 122), (318, 358)]
