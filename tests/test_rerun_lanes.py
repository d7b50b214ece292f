"""What the [rerun] table comes to."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pytest

from edge.bench.footage import pictures
from edge.config import CameraConfig, Config, MqttConfig, PoseConfig, PrivacyConfig, RerunConfig
from edge.errors import ConfigError
from edge.event_log import EventLog
from edge.lanes import LaneGroup
from edge.pacing import Deadline
from edge.privacy import Mode, Shows, most_shown
from edge.reports import CameraLost, DeviceInfo, LinkState
from edge.rerun_lanes import RerunLanes, identity, mask_form, video
from edge.rerun_log import disclosure, rrd
from edge.stats import DropCause, Stats
from edge.vision.frame import Picture, PixelLayout
from edge.vision.kinematics import JOINTS
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import eventually, frame, observe, pose
from tests.rerun_log.reading import chunks, column, received, rows
from tests.rerun_log.seen import in_file, on_the_wire, shown
from tests.servers import relay, rerun_server

ANGLES = "/camera/front/angles"
POINTS = "/camera/front/video/pose/points"
VIDEO = "/camera/front/video"

INFO = DeviceInfo(
    device="bench",
    session="1",
    started_ns=0,
    versions={"rerun-sdk": "0"},
    board="a board",
    model="full",
    model_sha256="0",
    max_people=1,
    segmentation=True,
    privacy="full",
    skeleton=MEDIAPIPE_POSE,
    cameras={"front": "synthetic"},
    landmarks_hz=None,
    summary_hz=None,
    settings={},
    keeps=False,
)


def config(*, max_people: int = 1, mqtt: MqttConfig | None = None, privacy: Mode = "full", **rerun: object) -> Config:
    return Config(
        device="bench",
        camera={"front": CameraConfig(source="synthetic")},
        pose=PoseConfig(max_people=max_people),
        mqtt=mqtt or MqttConfig(),
        rerun=RerunConfig(**rerun),
        privacy=PrivacyConfig(mode=privacy),
    )


@contextmanager
def running(group: LaneGroup | None) -> Iterator[LaneGroup]:
    """As the daemon starts and ends it."""
    assert group is not None
    group.begin()
    sources, outputs = group.stages()
    for stage in (*outputs, *sources):
        stage.start()
    try:
        yield group
    finally:
        for stages in (sources, outputs):
            for stage in stages:
                stage.close(Deadline(5.0))
            assert not [stage.name for stage in stages if not stage.join()]


def observe_frames(group: LaneGroup, seqs: range) -> None:
    for seq in seqs:
        seen = observe(frame(seq=seq), [pose()])
        for lane in group.observers:
            lane.offer(seen)


def film(group: LaneGroup, seqs: range) -> None:
    """As a camera hands over what it sees, with a person and a mask in each frame."""
    for seq in seqs:
        seen = frame(seq=seq)
        for lane in group.video:
            lane.offer(seen)
        for lane in group.observers:
            lane.offer(observe(seen, [pose(mask=(12, 16))]))


def test_nothing_is_logged_where_nothing_is_wanted(tmp_path: Path) -> None:
    lanes = RerunLanes("1", Stats([]), EventLog("1"))
    assert lanes.build(config(), INFO) is None
    assert lanes.build(config(record_dir=tmp_path, record=False), INFO) is None
    assert (lanes.state, lanes.recording) == (LinkState.OFF, None)


def test_a_device_has_one_certificate_for_brokers_and_hubs_unless_told_otherwise() -> None:
    files = {name: Path(f"/etc/{name}") for name in ("ca_file", "cert_file", "key_file")}
    both = identity(config(mqtt=MqttConfig(**files)))
    assert (both.ca_file, both.cert_file, both.key_file) == tuple(files.values())
    own = {"cert_file": Path("/own.cert"), "key_file": Path("/own.key")}
    assert identity(config(mqtt=MqttConfig(**files), **own)) == replace(both, **own)
    assert identity(config(mqtt=MqttConfig(**files), ca_file=Path("/own.ca"))).ca_file == Path("/own.ca")


@pytest.mark.integration
def test_a_change_goes_on_in_the_same_recording_with_a_file_of_its_own(tmp_path: Path) -> None:
    lanes = RerunLanes("1", Stats([]), EventLog("1"))
    for number, people in enumerate((1, 2)):
        with running(lanes.build(config(max_people=people, record_dir=tmp_path), INFO)) as group:
            observe_frames(group, range(10 * number, 10 * number + 10))
    lanes.close()
    first, second = sorted(tmp_path.glob("*.rrd"))
    assert lanes.recording == first
    assert [rows(path)[POINTS] for path in (first, second)] == [list(range(10)), list(range(10, 20))]
    curves = [
        [column(chunk, "names")[0] for chunk in chunks(path) if chunk.is_static and str(chunk.entity_path) == ANGLES]
        for path in (first, second)
    ]
    assert [{len(names) for names in each} for each in curves] == [{len(JOINTS)}, {2 * len(JOINTS)}]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("fine", "coarse"), [({"h264_crf": 18}, {"h264_crf": 40}), ({"jpeg_quality": 95}, {"jpeg_quality": 30})]
)
def test_another_quality_of_video_is_that_of_the_next_file(
    tmp_path: Path, fine: dict[str, int], coarse: dict[str, int]
) -> None:
    lanes = RerunLanes("1", Stats([]), EventLog("1"))
    codec, column_name = ("h264", "sample") if "h264_crf" in fine else ("jpeg", "blob")
    shots = [Picture(pixels, PixelLayout.RGB) for pixels in pictures()[:10]]
    for number, quality in enumerate((fine, coarse)):
        with running(lanes.build(config(video=codec, record_dir=tmp_path, **quality), INFO)) as group:
            for seq, shot in enumerate(shots, 10 * number):
                for lane in group.video:
                    lane.offer(replace(frame(seq=seq), rgb=shot))
    lanes.close()
    sizes = [
        [
            len(row[0])
            for chunk in chunks(path)
            if str(chunk.entity_path) == VIDEO and not chunk.is_static
            for row in column(chunk, column_name)
        ]
        for path in sorted(tmp_path.glob("*.rrd"))
    ]
    assert [len(each) for each in sizes] == [10, 10]
    assert sum(sizes[0]) > 3 * sum(sizes[1])


@pytest.mark.integration
def test_a_keyframe_that_the_log_wants_is_encoded_as_soon_as_there_is_a_picture(tmp_path: Path) -> None:
    lanes = RerunLanes("1", stats := Stats([]), EventLog("1"))
    with running(lanes.build(config(record_dir=tmp_path, keyframe_s=10), INFO)) as group:
        (lane,) = group.video
        for first, end in ((0, 70), (70, 80)):
            for seq in range(first, end):
                lane.offer(frame(seq=seq))
            eventually(lambda end=end: stats.sends().get("recording rows", 0) > end)  # and that it begins
            assert lanes._log is not None
            lanes._log.want_keyframes()
    with running(lanes.build(config(record_dir=tmp_path, video="off"), INFO)):
        lanes._log.want_keyframes()  # of nobody
    lanes.close()
    found = {
        seq: keyframe[0]
        for chunk in chunks(min(tmp_path.glob("*.rrd")))
        if str(chunk.entity_path) == VIDEO and not chunk.is_static
        for seq, keyframe in zip(column(chunk, "frame_idx"), column(chunk, "is_keyframe"), strict=True)
    }
    assert [seq for seq, keyframe in found.items() if keyframe] == [0, 30, 70]


@pytest.mark.integration
def test_what_a_hub_missed_outlasts_a_change(tmp_path: Path) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats, EventLog("1"))
    with rerun_server() as gone:
        url = gone.url
        port = gone.port
    with running(lanes.build(config(url=url), INFO)) as group:
        observe_frames(group, range(10))
    with rerun_server(port=port), running(lanes.build(config(url=url, max_people=2), INFO)) as group:
        observe_frames(group, range(10, 20))
        eventually(lambda: stats.sends().get("rerun link rows", 0) >= 20)
    lanes.close()
    assert not stats.drops()


@pytest.mark.integration
def test_what_a_hub_missed_is_read_from_the_disk_after_a_change_of_the_budget(tmp_path: Path) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats, EventLog("1"))
    with rerun_server() as gone:
        port, hub = gone.port, {"url": gone.url, "record_dir": tmp_path, "video": "off", "backfill_kb_s": 100_000}
    with running(lanes.build(config(**hub), INFO)) as group:
        observe_frames(group, range(10))
    assert lanes._log is not None
    lanes._log._kept.clear()  # as if much more had come since
    with rerun_server(port=port), running(lanes.build(config(**hub, keep_mb=500), INFO)):
        eventually(lambda: stats.sends().get("rerun link rows", 0) >= 10)
    lanes.close()
    assert not stats.drops()


@pytest.mark.integration
def test_what_a_hub_missed_stays_with_the_recording_when_that_goes_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats, EventLog("1"))
    with rerun_server() as gone:
        port, hub = gone.port, {"url": gone.url, "video": "off", "backfill_kb_s": 100_000}
    one, other = tmp_path / "one", tmp_path / "other"
    with running(lanes.build(config(**hub, record_dir=one), INFO)) as group:
        observe_frames(group, range(10))
    assert lanes._log is not None
    lanes._log._kept.clear()
    with running(lanes.build(config(**hub, record_dir=other), INFO)) as group:
        observe_frames(group, range(10, 20))
    assert f"that were not shipped stay in {one}, until rerun.record_dir leads there again" in caplog.text
    lanes.close()
    assert not stats.drops()
    later = RerunLanes("2", stats, EventLog("1"))
    left = len(list(rrd.messages((one / "bench-1.0001.rrd").read_bytes()[rrd.HEADER_BYTES :])))
    with rerun_server(port=port), running(later.build(config(**hub, record_dir=one, record=False), INFO)):
        eventually(lambda: stats.sends().get("rerun link rows", 0) >= left)
    assert later.recording is None
    later.close()
    assert [path.name for path in one.glob("*.rrd")] == ["bench-1.0001.rrd"]


@pytest.mark.integration
def test_what_is_switched_off_keeps_nothing_in_memory(tmp_path: Path) -> None:
    lanes = RerunLanes("1", stats := Stats([]), EventLog("1"))
    with running(lanes.build(config(url="rerun+http://127.0.0.1:1/proxy"), INFO)) as group:
        observe_frames(group, range(10))
    assert lanes._log is not None
    assert lanes._log.kept_bytes > 0
    with running(lanes.build(config(), INFO)):
        assert lanes._log.kept_bytes == 0
    assert stats.drops()["rerun link", DropCause.STOPPED] >= 10
    lanes.close()


@pytest.mark.integration
def test_what_can_not_be_leaves_everything_as_it_was(tmp_path: Path) -> None:
    lanes = RerunLanes("1", Stats([]), EventLog("1"))
    lanes.build(config(record_dir=tmp_path), INFO)
    before = lanes.recording
    (tmp_path / "taken").touch()
    with pytest.raises(ConfigError, match=r"rerun\.record_dir"):
        lanes.build(config(record_dir=tmp_path / "taken"), INFO)
    assert lanes.recording == before
    with pytest.raises(ConfigError, match=r"rerun\.ca_file"):
        lanes.build(config(url="rerun+https://hub/proxy", ca_file=tmp_path / "none"), INFO)
    assert lanes.recording == before
    lanes.close()


@pytest.mark.integration
def test_events_and_log_lines_are_in_the_recording_as_long_as_there_is_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stats, events = Stats(["front"]), EventLog("1")
    lanes = RerunLanes("1", stats, events)
    said = logging.getLogger("edge.somebody")
    caplog.set_level(logging.INFO, "edge")
    for times, directory in enumerate((tmp_path / "one", tmp_path / "two")):
        with running(lanes.build(config(record_dir=directory), INFO)):
            stats.cameras["front"].frame_captured()
            events.happened("front", CameraLost("unplugged"))
            said.info("hello %d", times)
            said.debug("not this")
        events.happened("front", CameraLost("between the two"))
        said.info("nobody listens")
    lanes.close()
    for times, directory in enumerate((tmp_path / "one", tmp_path / "two")):
        path = next(directory.glob("*.rrd"))
        assert texts(path, "/log/events") == ["front: camera_lost, reason: unplugged"]
        assert rows(path)["/log/events"] == [times]
        beginning, *said = texts(path, "/log/lines")
        assert beginning == "this log begins: video: h264, masks: image, privacy.mode: full"
        assert f"edge.somebody: hello {times}" in said
        assert not [text for text in texts(path, "/log/lines") if "not this" in text or "nobody" in text]


def texts(recording: Path, entity: str) -> list[str]:
    found = [chunk for chunk in chunks(recording) if str(chunk.entity_path) == entity]
    return [text for chunk in found for (text,) in column(chunk, "text")]


@pytest.mark.parametrize(
    ("mask", "segmentation", "rerun", "form"),
    [
        ("image", True, {"url": "rerun+http://hub/proxy"}, "image"),
        ("contour", True, {"serve": "127.0.0.1:9876"}, "contour"),
        ("image", True, {"record_dir": "/rec", "record": False}, "image"),
        ("image", False, {"url": "rerun+http://hub/proxy"}, "off"),
        ("off", True, {"url": "rerun+http://hub/proxy"}, "off"),
        ("image", True, {}, "off"),
    ],
)
def test_masks_are_made_where_they_are_logged(
    mask: str,
    segmentation: bool,  # noqa: FBT001 - a column of the table
    rerun: dict[str, object],
    form: str,
) -> None:
    about = config(mask=mask, **rerun)
    assert mask_form(about.model_copy(update={"pose": PoseConfig(segmentation=segmentation)})) == form


class TestPrivacy:
    def test_frames_have_no_lane_where_no_picture_may_leave_and_masks_no_place_where_they_may_not(self) -> None:
        wanted = {"record_dir": Path("/nowhere")}
        by_mode = {mode: config(privacy=mode, **wanted) for mode in get_args(Mode)}
        assert {mode: (video(about), mask_form(about)) for mode, about in by_mode.items()} == {
            "full": ("h264", "image"),
            "mask": ("off", "image"),
            "landmarks": ("off", "off"),
        }

    @pytest.mark.integration
    @pytest.mark.parametrize("mode", get_args(Mode))
    def test_a_recording_holds_what_its_mode_allows_and_says_so(self, tmp_path: Path, mode: Mode) -> None:
        lanes = RerunLanes("1", stats := Stats([]), EventLog("1"))
        with running(lanes.build(config(record_dir=tmp_path, privacy=mode), INFO)) as group:
            film(group, range(10))
        lanes.close()
        (path,) = tmp_path.glob("*.rrd")
        assert max(map(shown, in_file(path))) is most_shown(mode) is disclosure.most_shown(path)
        assert bool(group.video) is (mode == "full")
        assert not stats.drops(), "nothing was made that had to be refused"

    @pytest.mark.integration
    def test_after_a_change_to_a_stricter_mode_a_hub_gets_nothing_of_before_that_shows_more(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        lanes = RerunLanes("1", stats := Stats([]), EventLog("1"))
        records = tmp_path / "records"
        with rerun_server() as gone:
            port, hub = gone.port, {"url": gone.url, "record_dir": records, "backfill_kb_s": 100_000}
        with running(lanes.build(config(**hub), INFO)) as group:
            film(group, range(10))
        with (
            rerun_server(port=port),
            running(lanes.build(config(**hub, privacy="landmarks"), INFO)) as group,
        ):
            film(group, range(10, 20))
            eventually(lambda: stats.sends().get("rerun link rows", 0) >= 10)
            got = tmp_path / "got.rrd"
            received(hub["url"], got, expect={POINTS: 10})
        lanes.close()
        assert max(map(shown, in_file(got))) is Shows.NUMBERS
        assert rows(got)[POINTS] == list(range(10, 20))
        open_file, strict_file = sorted(records.glob("*.rrd"))
        assert [disclosure.most_shown(path) for path in (open_file, strict_file)] == [Shows.PICTURES, Shows.NUMBERS]
        assert max(map(shown, in_file(strict_file))) is Shows.NUMBERS
        assert stats.drops() == {("rerun link", DropCause.PRIVATE): 20}
        assert caplog.text.count(f"privacy.mode is landmarks now: what was recorded before stays in {records}") == 1

    @pytest.mark.integration
    def test_what_an_earlier_run_left_is_shipped_only_as_far_as_it_may_leave_now(self, tmp_path: Path) -> None:
        with rerun_server() as gone:
            port, hub = gone.port, {"url": gone.url, "record_dir": tmp_path, "backfill_kb_s": 100_000}
        for session, mode in (("1", "full"), ("2", "landmarks"), ("3", "mask")):
            lanes = RerunLanes(session, Stats([]), EventLog(session))
            with running(lanes.build(config(**hub, privacy=mode), INFO)) as group:
                film(group, range(10))
            lanes.close()
        (allowed,) = [path for path in tmp_path.glob("*.rrd") if disclosure.most_shown(path) is Shows.NUMBERS]
        messages = len(list(rrd.messages(allowed.read_bytes()[rrd.HEADER_BYTES :])))
        lanes = RerunLanes("4", stats := Stats([]), EventLog("1"))
        with rerun_server() as server, relay(server.port, port=port, listens=True) as wire:
            with running(lanes.build(config(**hub, privacy="landmarks"), INFO)):
                eventually(lambda: stats.sends().get("rerun link rows", 0) >= messages)
            lanes.close()
            sent = [batch for heard in wire.heard for batch in on_the_wire(heard)]
        assert len(sent) > messages - 4, "all but what is no chunk"
        assert max(map(shown, sent)) is Shows.NUMBERS
