"""How long a frame is under way, from when its light fell to its landmarks' hand-over to the broker.

usage: python -m tests.measure.capture_to_publish [SECONDS]

The daemon as it is, with a live camera of 30 frames a second behind GStreamer, which shows the bundled clip's person;
model full, MQTT with every frame, no Rerun. The figures are those of P/health, over the last 512 frames.
"""

from __future__ import annotations

import sys
import time

from edge.app import App
from edge.config import CameraConfig, Config, MqttConfig, PoseConfig
from edge.control import Inbox
from edge.estimators.models.store import ModelStore
from tests.conftest import CLIP
from tests.servers import mosquitto

PIPELINE = "gstreamer:filesrc location={clip} ! decodebin ! imagefreeze is-live=true ! video/x-raw,framerate=30/1"


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    model = ModelStore().find("full")
    assert model is not None
    with mosquitto() as broker:
        config = Config(
            device="bench",
            camera={"front": CameraConfig(source=PIPELINE.format(clip=CLIP))},
            pose=PoseConfig(segmentation=False),
            mqtt=MqttConfig(url=(broker.url,), landmarks_hz="unlimited"),
        )
        app = App(config, model, Inbox())
        app.daemon.start()
        try:
            time.sleep(seconds)
            counts = app.stats.cameras["front"].counts()
        finally:
            app.stop()
    print(f"captured {counts.captured}, estimated {counts.estimated}, with people {counts.with_people}")
    for name in ("inference", "publish", "age"):
        print(f"{name:<10} {getattr(counts, name)}")


if __name__ == "__main__":
    main()
