"""What the log says once, as Rerun reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rerun.chunk import RrdReader

from edge.rerun_log.log import SceneLog
from edge.stats import Stats
from tests.rerun_log.reading import chunks, column, static
from tests.rerun_log.scenes import scene

pytestmark = pytest.mark.integration


def described(directory: Path, *cameras: str) -> Path:
    """What a file begins with."""
    log = SceneLog(Stats([]))
    log.describe(scene(max_people=2, cameras=cameras or ("front",)))
    path = directory / "described.rrd"
    path.write_bytes(b"".join(log.description))
    log.close()
    return path


def test_what_does_not_change_is_described_once(tmp_path: Path) -> None:
    path = described(tmp_path, "front", "back")
    found = static(path)
    assert "AnnotationContext:context" in found["/"]
    for camera in ("front", "back"):
        assert "VideoStream:codec" in found[f"/camera/{camera}/video"]
        assert "AnnotationContext:context" in found[f"/camera/{camera}/video/mask"]
        assert {"Points2D:class_ids", "Points2D:keypoint_ids"} <= found[f"/camera/{camera}/video/pose/points"]
        assert "ViewCoordinates:xyz" in found[f"/camera/{camera}/person"]
        assert "SeriesLines:names" in found[f"/camera/{camera}/angles"]


def test_the_class_description_names_and_joins_the_keypoints(tmp_path: Path) -> None:
    path = described(tmp_path)
    (chunk,) = [chunk for chunk in chunks(path) if str(chunk.entity_path) == "/"]
    people = column(chunk, "context")[0][0]
    assert [each["class_description"]["info"]["label"] for each in people] == ["person 1", "person 2"]
    body = people[0]["class_description"]
    assert [each["label"] for each in body["keypoint_annotations"]] == list(scene().skeleton.keypoints)
    pairs = [(each["keypoint0"], each["keypoint1"]) for each in body["keypoint_connections"]]
    assert pairs == list(scene().skeleton.connections)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_blueprint_has_views_for_every_camera(count: int, tmp_path: Path) -> None:
    cameras = tuple(f"cam{number}" for number in range(count))
    path = tmp_path / "blueprint.rbl"
    scene(cameras=cameras).blueprint().save("edge-pose/bench", str(path))
    reader = RrdReader(str(path))
    origins = {
        str(value)
        for chunk in reader.stream(store=reader.blueprints()[0])
        for name in chunk.to_record_batch().schema.names
        if name.endswith("ViewBlueprint:space_origin")
        for (value,) in column(chunk, "space_origin")
    }
    expected = {f"/camera/{camera}/{part}" for camera in cameras for part in ("video", "person", "angles")}
    assert origins == expected
