"""What the log says once, as Rerun reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rerun.chunk import RrdReader

from edge.rerun_log.log import SceneLog
from edge.rerun_log.scene import Scene
from edge.stats import Stats
from edge.vision.kinematics import JOINTS
from tests.rerun_log.reading import chunks, column, static
from tests.rerun_log.scenes import scene

pytestmark = pytest.mark.integration


def described(directory: Path, *cameras: str, about: Scene | None = None) -> Path:
    """What a file begins with."""
    log = SceneLog(Stats([]))
    log.describe(about or scene(max_people=2, cameras=cameras or ("front",)))
    path = directory / "described.rrd"
    path.write_bytes(log.description.header + log.description.messages)
    log.close()
    return path


def test_what_does_not_change_is_described_once(tmp_path: Path) -> None:
    path = described(tmp_path, "front", "back")
    found = static(path)
    assert "AnnotationContext:context" in found["/"]
    for camera in ("front", "back"):
        assert "VideoStream:codec" in found[f"/camera/{camera}/video"]
        assert "AnnotationContext:context" in found[f"/camera/{camera}/video/mask"]
        assert "Points2D:keypoint_ids" in found[f"/camera/{camera}/video/pose/points"]
        assert "Points2D:show_labels" in found[f"/camera/{camera}/video/pose/names"]
        assert "ViewCoordinates:xyz" in found[f"/camera/{camera}/person"]
        assert "SeriesLines:names" in found[f"/camera/{camera}/angles"]
        assert "SeriesLines:names" in found[f"/camera/{camera}/stats"]
    assert "SeriesLines:names" in found["/stats"]


def test_the_class_description_names_and_joins_the_keypoints(tmp_path: Path) -> None:
    path = described(tmp_path)
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == "/"]
    people = column(chunk, "context")[0][0]
    assert [each["class_description"]["info"]["label"] for each in people][:2] == [
        "person, colour 1",
        "person, colour 2",
    ]
    body = people[0]["class_description"]
    assert [each["label"] for each in body["keypoint_annotations"]] == list(scene().skeleton.keypoints)
    pairs = [(each["keypoint0"], each["keypoint1"]) for each in body["keypoint_connections"]]
    assert pairs == list(scene().skeleton.connections)


def test_the_angles_of_each_place_have_a_name_and_a_colour(tmp_path: Path) -> None:
    path = described(tmp_path)
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == "/camera/front/angles"]
    (names,), (colours,) = column(chunk, "names"), column(chunk, "colors")
    assert names[:2] == ["1 left shoulder", "1 right shoulder"]
    assert names[len(JOINTS)] == "2 left shoulder"
    assert len(names) == len(colours) == 2 * len(JOINTS)
    assert len(set(colours)) == 2 * len(JOINTS)


def test_without_masks_nothing_is_said_of_them(tmp_path: Path) -> None:
    found = static(described(tmp_path, about=scene(mask="off", video="off")))
    assert "/camera/front/video/mask" not in found
    assert not [name for name in found["/camera/front/video"] if "Video" in name]


def test_a_contour_is_a_line(tmp_path: Path) -> None:
    assert "LineStrips2D:radii" in static(described(tmp_path, about=scene(mask="contour")))["/camera/front/video/mask"]


def test_it_says_who_recorded_it_and_since_when(tmp_path: Path) -> None:
    found = {
        name: column(chunk, name)
        for chunk in RrdReader(str(described(tmp_path))).stream()
        if str(chunk.entity_path).startswith("/__properties")
        for name in chunk.to_record_batch().schema.names
        if ":" not in name or name.startswith("RecordingInfo:")
    }
    assert found["RecordingInfo:name"] == [["bench 20260101T000000Z-0000abcd"]]
    assert found["RecordingInfo:start_time"] == [[1_767_225_600_000_000_000]]
    assert found["board"] == [["test"]]
