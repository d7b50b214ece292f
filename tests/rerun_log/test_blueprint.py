"""The layout that a viewer is given."""

from __future__ import annotations

from pathlib import Path

import pytest
from rerun.chunk import RrdReader

from edge.rerun_log.blueprint import blueprint
from tests.rerun_log.reading import column

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_camera_has_its_views_and_the_device_has_its_own(count: int, tmp_path: Path) -> None:
    cameras = tuple(f"cam{number}" for number in range(count))
    path = tmp_path / "blueprint.rbl"
    blueprint(cameras, pictures=True).save("edge-pose/bench", str(path))
    reader = RrdReader(str(path))
    origins = [
        str(value)
        for chunk in reader.stream(store=reader.blueprints()[0])
        for name in chunk.to_record_batch().schema.names
        if name.endswith("ViewBlueprint:space_origin")
        for (value,) in column(chunk, "space_origin")
    ]
    expected = [f"/camera/{camera}/{part}" for camera in cameras for part in ("video", "person", "angles", "stats")]
    assert sorted(origins) == sorted([*expected, "/log", "/stats"])
