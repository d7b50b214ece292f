"""What the [rerun] table comes to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edge.config import CameraConfig, Config, MqttConfig, PoseConfig, RerunConfig
from edge.errors import ConfigError
from edge.lanes import LaneGroup
from edge.pacing import Deadline
from edge.reports import DeviceInfo, LinkState
from edge.rerun_lanes import RerunLanes, identity
from edge.rerun_log import rrd
from edge.stats import DropCause, Stats
from edge.vision.observation import observe
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import eventually, frame, pose
from tests.rerun_log.reading import rows, static
from tests.servers import rerun_server

POINTS = "/camera/front/video/pose/points"

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
    skeleton=MEDIAPIPE_POSE,
    cameras={"front": "synthetic"},
    landmarks_hz=None,
    summary_hz=None,
    settings={},
    keeps=False,
)


def config(*, max_people: int = 1, mqtt: MqttConfig | None = None, **rerun: object) -> Config:
    return Config(
        device="bench",
        camera={"front": CameraConfig(source="synthetic")},
        pose=PoseConfig(max_people=max_people),
        mqtt=mqtt or MqttConfig(),
        rerun=RerunConfig(**rerun),
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


def test_nothing_is_logged_where_nothing_is_wanted(tmp_path: Path) -> None:
    lanes = RerunLanes("1", Stats([]))
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
    lanes = RerunLanes("1", Stats([]))
    for number, people in enumerate((1, 2)):
        with running(lanes.build(config(max_people=people, record_dir=tmp_path), INFO)) as group:
            observe_frames(group, range(10 * number, 10 * number + 10))
    lanes.close()
    first, second = sorted(tmp_path.glob("*.rrd"))
    assert lanes.recording == first
    assert [rows(path)[POINTS] for path in (first, second)] == [list(range(10)), list(range(10, 20))]
    assert static(first).keys() == static(second).keys()


@pytest.mark.integration
def test_what_a_hub_missed_outlasts_a_change(tmp_path: Path) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats)
    with rerun_server() as gone:
        url = gone.url
        port = gone.port
    with running(lanes.build(config(url=url), INFO)) as group:
        observe_frames(group, range(10))
    with running(lanes.build(config(url=url, max_people=2), INFO)) as group:
        observe_frames(group, range(10, 20))
        with rerun_server(port=port):
            eventually(lambda: stats.sends().get("rerun link rows", 0) == 20)
    lanes.close()
    assert not stats.drops()


@pytest.mark.integration
def test_what_a_hub_missed_is_read_from_the_disk_after_a_change_of_the_budget(tmp_path: Path) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats)
    with rerun_server() as gone:
        port, hub = gone.port, {"url": gone.url, "record_dir": tmp_path, "video": "off", "backfill_kb_s": 100_000}
    with running(lanes.build(config(**hub), INFO)) as group:
        observe_frames(group, range(10))
    assert lanes._log is not None
    lanes._log._kept.clear()  # as if much more had come since
    with running(lanes.build(config(**hub, keep_mb=500), INFO)), rerun_server(port=port):
        eventually(lambda: stats.sends().get("rerun link rows", 0) == 10)
    lanes.close()
    assert not stats.drops()


@pytest.mark.integration
def test_what_a_hub_missed_stays_with_the_recording_when_that_goes_elsewhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stats = Stats([])
    lanes = RerunLanes("1", stats)
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
    later = RerunLanes("2", stats)
    left = len(list(rrd.messages((one / "bench-1.0001.rrd").read_bytes()[rrd.HEADER_BYTES :])))
    with running(later.build(config(**hub, record_dir=one, record=False), INFO)), rerun_server(port=port):
        eventually(lambda: stats.sends().get("rerun link rows", 0) == left)
    assert later.recording is None
    later.close()
    assert [path.name for path in one.glob("*.rrd")] == ["bench-1.0001.rrd"]


@pytest.mark.integration
def test_what_is_switched_off_keeps_nothing_in_memory(tmp_path: Path) -> None:
    lanes = RerunLanes("1", stats := Stats([]))
    with running(lanes.build(config(url="rerun+http://127.0.0.1:1/proxy"), INFO)) as group:
        observe_frames(group, range(10))
    assert lanes._log is not None
    assert lanes._log.kept_bytes > 0
    with running(lanes.build(config(), INFO)):
        assert lanes._log.kept_bytes == 0
    assert stats.drops() == {("rerun link", DropCause.STOPPED): 10}
    lanes.close()


@pytest.mark.integration
def test_what_can_not_be_leaves_everything_as_it_was(tmp_path: Path) -> None:
    lanes = RerunLanes("1", Stats([]))
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
