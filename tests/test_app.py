"""What the composition root decides by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import pytest

import edge
from edge.app import App, driver_request, frame_source, view_of
from edge.config import CameraConfig, Config, PeopleConfig, PoseConfig, PrivacyConfig, RerunConfig
from edge.control import Inbox
from edge.errors import CameraUnusable, OrderRefused
from edge.estimators.models.catalog import Make
from edge.estimators.models.store import Model
from edge.interfaces import FrameSource
from edge.privacy import Mode, most_shown
from edge.rerun_lanes import video_lane
from edge.stats import Stats
from edge.vision.events import PeopleEvent, PersonEntered, ZoneEntered
from edge.vision.frame import EncodedFrame, Frame, Picture, PixelLayout, VideoCodec, VideoPacket
from tests.conftest import eventually, frame
from tests.rerun_log.reading import chunks, column, rows
from tests.rerun_log.seen import in_file, shown
from tests.rigs import Shelf

CLIP = Path(edge.__file__).parent / "media" / "one_person_640x480_30fps.mp4"


class FailsLater:
    """A camera that turns out to be unusable only after `meanwhile` has become true."""

    live, opening = True, False

    def __init__(self, meanwhile: Callable[[], bool]) -> None:
        self._meanwhile = meanwhile

    def __enter__(self) -> Self:
        eventually(self._meanwhile, 20)
        raise CameraUnusable("back: no such device")

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, timeout_s: float) -> Frame | None:
        raise AssertionError(f"it was never opened, and is asked for a frame within {timeout_s} s")


@pytest.mark.integration
@pytest.mark.parametrize(("mode", "wanted"), [("landmarks", "full"), ("mask", "full"), ("full", "landmarks")])
def test_a_refused_reload_lets_nothing_out_that_the_stricter_mode_forbids(
    tmp_path: Path, model: Path, mode: Mode, wanted: Mode
) -> None:
    def config(mode: Mode, *cameras: str) -> Config:
        return Config(
            device="hall",
            camera={name: CameraConfig(source=str(CLIP), loop=True) for name in cameras},
            rerun=RerunConfig(record_dir=tmp_path),
            privacy=PrivacyConfig(mode=mode),
        )

    def seen() -> int:
        return app.stats.cameras["front"].captured

    def source(name: str, camera: CameraConfig) -> FrameSource:
        begun = seen() if name == "back" else 0
        return FailsLater(lambda: seen() > begun + 45) if name == "back" else frame_source(name, camera)

    full = Model("full", model, "0", Make.OFFICIAL)
    app = App(config(mode, "front"), full, Inbox(), sources=source)
    app.daemon.start()
    eventually(lambda: seen() > 30, 30)
    with pytest.raises(OrderRefused, match="no such device"):
        app.reload(config(wanted, "front", "back"), full)
    assert app.config.privacy.mode == mode
    before = app.stats.sends()["recording rows"]
    eventually(lambda: app.stats.sends()["recording rows"] > before + 60, 20)
    app.stop()
    files = sorted(tmp_path.glob("*.rrd"))
    assert max(max(map(shown, in_file(path))) for path in files) is most_shown(mode)
    if mode == "full":
        assert "/camera/front/video" in rows(files[-1]), "it goes on with pictures"


def filmed(width_px: int, height_px: int) -> Frame:
    """As a decoder gives it: for the estimator and for people."""
    planes = Picture(np.zeros((height_px * 3 // 2, width_px), np.uint8), PixelLayout.I420)
    return replace(frame(width_px=width_px, height_px=height_px), video=planes)


@pytest.mark.parametrize(("width_px", "height_px", "held"), [(640, 480, 16), (1920, 1080, 2), (3840, 2160, 2)])
def test_a_stuck_encoder_holds_as_many_frames_as_memory_bears_and_two_of_the_largest(
    width_px: int, height_px: int, held: int
) -> None:
    stats, each = Stats([]), filmed(width_px, height_px)
    lane = video_lane(Shelf(), stats)
    for _ in range(40):
        lane.offer(each)

    assert sum(stats.drops().values()) == 40 - held


def test_what_a_camera_has_encoded_waits_for_a_minute_at_200_kb_a_second() -> None:
    stats = Stats([])
    lane = video_lane(Shelf(), stats)
    for seq in range(60 * 30):
        lane.offer(EncodedFrame("front", seq, (VideoPacket(seq, 0, VideoCodec.H264, True, bytes(6700)),)))

    assert not stats.drops()


@pytest.mark.integration
def test_a_region_changes_in_its_place_and_a_crop_with_the_camera(tmp_path: Path, model: Path) -> None:
    def config(**keys: object) -> Config:
        front = CameraConfig.model_validate({"source": str(CLIP), "loop": True, **keys})
        pose = PoseConfig(workers=1)
        return Config(device="bench", camera={"front": front}, pose=pose, rerun=RerunConfig(record_dir=tmp_path))

    def seen() -> Frame:
        latest = app.daemon.cameras["front"].latest
        assert latest is not None
        return latest

    full = Model("full", model, "0", Make.OFFICIAL)
    app = App(config(), full, Inbox())
    app.daemon.start()
    eventually(lambda: app.stats.cameras["front"].counts().people == 1, 30)
    aside = (0.65, 0.0, 0.35, 1.0)
    assert app.reload(config(roi=aside), full) == ["pose of front"]
    eventually(lambda: app.stats.cameras["front"].counts().people == 0, 20)
    assert seen().for_people.width_px == 640, "everybody sees all of it"

    assert app.reload(config(crop=(0.25, 0.0, 0.5, 1.0), rotate_deg=180), full) == ["rerun", "camera front"]
    eventually(lambda: app.stats.cameras["front"].counts().people == 1, 20)
    assert (seen().rgb.width_px, seen().rgb.height_px) == (320, 480)
    assert (seen().for_people.width_px, seen().for_people.height_px) == (320, 480)

    assert app.reload(config(crop=(0.25, 0.0, 0.5, 1.0), rotate_deg=180, roi=(0.0, 0.0, 1.0, 0.9)), full) == [
        "pose of front"
    ]
    before = app.stats.sends()["recording rows"]
    eventually(lambda: app.stats.sends()["recording rows"] > before + 60, 20)
    app.stop()
    last = max(tmp_path.glob("*.rrd"))
    entity = "/camera/front/video/pose/points"
    points = [chunk for chunk in chunks(last) if str(chunk.entity_path) == entity and not chunk.is_static]
    people = [np.array(row) for chunk in points for row in column(chunk, "positions") if row]
    assert people
    middles = [person.mean(axis=0) for person in people]
    assert all(0 < x < 320 and 0 < y < 480 for x, y in middles)


@pytest.mark.parametrize(
    ("keys", "flips", "encodes"),
    [
        ({}, (False, False), True),
        ({"rotate_deg": 180}, (True, True), True),
        ({"flip": "vertical"}, (False, True), True),
        ({"flip": "horizontal", "crop": (0, 0, 1, 0.5)}, (True, False), False),
        ({"rotate_deg": 90}, (False, False), False),
        ({"rotate_deg": 180, "encoder": False}, (True, True), False),
    ],
)
def test_a_camera_flips_by_itself_and_encodes_only_what_may_be_seen(
    keys: dict[str, object], flips: tuple[bool, bool], *, encodes: bool
) -> None:
    camera = CameraConfig.model_validate({"source": "picamera2", **keys})
    request = driver_request(camera, view_of(camera))
    assert (request["flip_horizontal"], request["flip_vertical"]) == flips
    assert request["encoder"] is encodes
    assert request["source"] == ""


@pytest.mark.integration
def test_people_stay_who_they_are_while_zones_and_smoothing_change_and_ids_go_on_when_the_camera_is_made_anew(
    model: Path,
) -> None:
    everywhere = {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "point": "hips"}

    def config(people: PeopleConfig, **keys: object) -> Config:
        front = CameraConfig.model_validate({"source": str(CLIP), "loop": True, **keys})
        return Config(device="bench", camera={"front": front}, pose=PoseConfig(workers=1), people=people)

    events: list[PeopleEvent] = []

    def told(kind: type[PeopleEvent]) -> list[PeopleEvent]:
        return [each for each in events if isinstance(each, kind)]

    full, plain = Model("full", model, "0", Make.OFFICIAL), PeopleConfig(events=("presence", "zones"))
    app = App(config(plain), full, Inbox())
    app.events.listen(lambda event: events.append(event.what) if isinstance(event.what, PeopleEvent) else None)
    app.daemon.start()
    eventually(lambda: told(PersonEntered), 30)
    assert app.reload(config(plain, zone={"all": everywhere}), full) == ["people of front"]
    eventually(lambda: told(ZoneEntered), 30)
    strong = plain.model_copy(update={"smoothing": "strong"})
    assert app.reload(config(strong, zone={"all": everywhere}), full) == ["people of front"]
    assert [(type(each), each.person_id) for each in events] == [(PersonEntered, 1), (ZoneEntered, 1)]  # type: ignore[union-attr]

    assert app.reload(config(strong, flip="horizontal"), full) == ["camera front"]
    eventually(lambda: len(told(PersonEntered)) == 2, 30)
    app.stop()
    assert [each.person_id for each in told(PersonEntered)] == [1, 2]  # type: ignore[union-attr]
