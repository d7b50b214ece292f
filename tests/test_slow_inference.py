"""Inference slower than the camera: people see the camera's rate all the same, with skeletons on their frames."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import av
import numpy as np
import pytest

from edge.app import App
from edge.bench.footage import MemorySource, shots
from edge.config import CameraConfig, Config, PeopleConfig, PoseConfig, RerunConfig
from edge.control import Inbox
from edge.estimators.mediapipe import MediaPipeEstimator
from edge.estimators.models.store import ModelStore
from edge.vision.frame import Frame
from edge.vision.pose import Pose
from tests.conftest import eventually
from tests.rerun_log.onlooker import Onlooker
from tests.servers import Server, rerun_server

pytestmark = pytest.mark.integration

VIDEO = "/camera/front/video"
POINTS = "/camera/front/video/pose/points"
WIDTH_PX, HEIGHT_PX = 640, 480
INFERENCE_S = 1 / 6


class Slow(MediaPipeEstimator):
    """The real one on a board that is a tenth as fast. found: what it saw in which frame."""

    found: dict[int, tuple[Pose, ...]]

    def __enter__(self) -> Self:
        self.found = {}
        return super().__enter__()

    def estimate(self, frame: Frame) -> tuple[Pose, ...]:
        begun_s = time.monotonic()
        self.found[frame.seq] = poses = super().estimate(frame)
        time.sleep(max(0.0, begun_s + INFERENCE_S - time.monotonic()))
        return poses


class SlowApp(App):
    """The daemon on that board."""

    def _estimator(self) -> MediaPipeEstimator:
        pose = self.config.pose
        self.slow = Slow(self._model.path, max_people=pose.max_people, segmentation=pose.segmentation)
        return self.slow


@pytest.fixture
def server() -> Iterator[Server]:
    with rerun_server() as running:
        yield running


@pytest.fixture
def app(server: Server, model: Path) -> Iterator[SlowApp]:
    config = Config(
        device="bench",
        camera={"front": CameraConfig(source="synthetic")},
        pose=PoseConfig(model=str(model), workers=1),
        people=PeopleConfig(smoothing="off"),
        rerun=RerunConfig(url=server.url),
    )
    footage = shots()
    found = ModelStore().find(str(model))
    assert found is not None
    app = SlowApp(config, found, Inbox(), sources=lambda name, _: MemorySource(name, footage, fps=30.0))
    app.daemon.start()
    try:
        yield app
    finally:
        app.stop()


def test_video_keeps_the_cameras_rate_and_skeletons_are_on_their_frames(app: SlowApp, server: Server) -> None:
    onlooker = Onlooker(server.port, keeps_content=True)
    try:
        eventually(lambda: len(onlooker.rows(POINTS)) > 20, 60)
    finally:
        onlooker.close()
    video = onlooker.rows(VIDEO)
    assert video == [*range(len(video))], "every picture, in order"
    points = {
        seq: np.array(row).reshape(-1, 33, 2)
        for each in onlooker.arrivals
        if each.entity == POINTS
        for seq, row in zip(each.seqs, each.column("positions"), strict=True)
    }
    assert len(video) > 3 * len(points)
    for seq, people in points.items():
        expected = [each.image_xyz[:, :2] * (WIDTH_PX, HEIGHT_PX) for each in app.slow.found[seq]]
        np.testing.assert_allclose(people, expected, atol=1e-3)
    assert "rerun video" not in {place for place, _ in app.stats.drops()}


def test_who_joins_late_has_a_picture_of_now_that_can_be_decoded(app: SlowApp, server: Server) -> None:
    """How soon is what python -m tests.measure.first_picture says."""
    eventually(lambda: app.stats.sends().get("rerun link rows", 0) > 120, 60)
    onlooker = Onlooker(server.port, keeps_content=True)
    came_s = time.time()

    def decoded() -> list[int]:
        """Which frames a viewer can show."""
        decoder = av.CodecContext.create("h264", "r")
        return [
            seq
            for each in list(onlooker.arrivals)
            if each.entity == VIDEO
            for seq, (sample,) in zip(each.seqs, each.column("sample"), strict=True)
            if decoder.decode(av.Packet(bytes(sample)))
        ]

    def newest_s() -> float:
        captured_s = {
            seq: at_s for each in list(onlooker.arrivals) for seq, at_s in zip(each.seqs, each.captured_s, strict=True)
        }
        return max((captured_s[seq] for seq in decoded()), default=0.0)

    try:
        eventually(lambda: newest_s() > came_s)
    finally:
        onlooker.close()
    shown = decoded()
    assert shown == [*range(len(shown))]
