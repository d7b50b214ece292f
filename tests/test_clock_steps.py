"""Somebody sets the wall clock while cameras run: everything goes on, in order, with the right time from then on."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.app import App
from edge.bench.footage import MemorySource, shots
from edge.config import CameraConfig, Config, MqttConfig, PoseConfig, RerunConfig
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from edge.vision.frame import Frame
from tests.conftest import eventually
from tests.mqtt.capture import Capture
from tests.rerun_log.reading import chunks, column
from tests.servers import mosquitto

pytestmark = pytest.mark.integration

FRAMES = 100
STEPS_S = {20: -3600.0, 40: 3600.0 * 24 * 365 * 40, 60: -0.5, 80: 2.0}
"""By how much the clock is set at which frame."""


class Stepped(MemorySource):
    """A camera of 30 frames a second under a clock that is set again and again, and that has no frames at the end."""

    def __init__(self, camera: str) -> None:
        super().__init__(camera, shots(), fps=30.0)
        self.captured_ns: dict[int, int] = {}

    def read(self, timeout_s: float) -> Frame | None:
        if len(self.captured_ns) == FRAMES:
            return None
        frame = super().read(timeout_s)
        if frame is None:
            return None
        set_s = sum(step_s for at, step_s in STEPS_S.items() if frame.seq >= at)
        stepped = replace(frame, captured_ns=frame.captured_ns + int(set_s * 1e9))
        self.captured_ns[frame.seq] = stepped.captured_ns
        return stepped


def test_nothing_stops_and_order_stays_when_the_clock_is_set(tmp_path: Path, model: Path) -> None:
    source = Stepped("front")
    with mosquitto() as broker, Capture(broker.url) as listener:
        config = Config(
            device="bench",
            camera={"front": CameraConfig(source="synthetic")},
            pose=PoseConfig(model=str(model), segmentation=False),
            mqtt=MqttConfig(url=(broker.url,), landmarks_hz="unlimited", summary_hz=5.0),
            rerun=RerunConfig(record_dir=tmp_path, frames_hz="unlimited"),
        )
        found = ModelStore().find(str(model))
        assert found is not None
        app = App(config, found, Inbox(), sources=lambda _, __: source)
        app.daemon.start()
        try:
            eventually(lambda: app.stats.cameras["front"].counts().estimated >= 0.9 * FRAMES, 60)
            eventually(lambda: len(source.captured_ns) == FRAMES)
        finally:
            app.stop()
        landmarks = [json.loads(payload) for payload in listener.payloads("pose/v1/bench/camera/front/landmarks")]
        summaries = [json.loads(payload) for payload in listener.payloads("pose/v1/bench/camera/front/summary")]

    seqs = [message["seq"] for message in landmarks]
    assert len(seqs) >= 0.8 * FRAMES
    assert all(before < after for before, after in itertools.pairwise(seqs)), "in order, nothing twice"
    assert all(message["t_us"] == source.captured_ns[message["seq"]] // 1000 for message in landmarks)
    assert 12 <= len(summaries) <= 20, "five a second of three seconds, whatever the clock says"

    shown: dict[int, int] = {}
    for recording in sorted(tmp_path.glob("*.rrd")):
        for chunk in chunks(recording):
            if str(chunk.entity_path) == "/camera/front/video" and not chunk.is_static:
                times_ns = [time.value for time in chunk.to_record_batch().column("time")]
                pairs = list(zip(column(chunk, "frame_idx"), times_ns, strict=True))
                assert not shown.keys() & dict(pairs).keys(), "nothing twice"
                shown |= dict(pairs)
    assert list(shown) == list(range(FRAMES)), "every picture, in order"
    assert shown == source.captured_ns
