from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.app import App
from edge.bench.daemon import Edge, configuration, delivered, measure, rate
from edge.bench.measurement import FREE_RUNNING, WITH_BROKER, WITH_RERUN, Loop, Task
from edge.bench.rounds import run
from edge.errors import ModelError
from edge.rerun_lanes import mask_form, recording_into
from edge.stats import DropCause
from tests.mqtt.test_sink import subscriber
from tests.rerun_log.reading import received
from tests.servers import mosquitto, rerun_server

TASK = Task(Loop.ALL, "m.task", 1.0, broker="mqtt://127.0.0.1:1", hub="rerun+http://127.0.0.1:2/proxy", workers=2)
ENTITIES = [f"/camera/bench0/{what}" for what in ("video", "video/mask", "video/pose/points", "person/pose/points")]


def of(loop: Loop, **changes: object) -> Task:
    return replace(TASK, loop=loop, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("loop", [Loop.POOL, Loop.MQTT, Loop.ALL, Loop.ALL_CAPPED, Loop.PACED_ALL])
def test_the_daemon_is_told_what_the_loop_is_named_for(loop: Loop) -> None:
    config = configuration(of(loop, cameras=2, people=3, masks=False))
    assert bool(config.mqtt.url) == (loop in WITH_BROKER)
    assert bool(config.rerun.url) == (loop in WITH_RERUN)
    assert config.rerun.frames_hz == ("unlimited" if loop is Loop.ALL else 30.0)
    assert recording_into(config.rerun) is None, "the figures are not those of a disk"
    assert config.mqtt.landmarks_hz == "unlimited"
    assert config.rerun.video == "h264"
    assert config.rerun.mask == "image"
    assert config.pose.workers == ("auto" if loop is Loop.PACED_ALL else 2)
    assert (len(config.camera), config.pose.max_people, config.pose.segmentation) == (2, 3, False)


@pytest.mark.parametrize("loop", [Loop.POOL, Loop.MQTT, Loop.ALL, Loop.ALL_CAPPED, Loop.PACED_ALL])
@pytest.mark.parametrize("masks", [True, False])
def test_masks_are_made_in_each_loop_that_is_compared_with_one_that_makes_them(loop: Loop, *, masks: bool) -> None:
    assert (mask_form(configuration(of(loop, masks=masks))) != "off") is masks


def test_between_two_edges_the_rate_is_exact() -> None:
    begin, end = Edge(at_s=10.0, count=8), Edge(at_s=12.5, count=208)
    assert rate(begin, end) == 80.0


def test_what_was_dropped_anywhere_on_the_way_has_not_arrived() -> None:
    sends = {"mqtt landmarks": 1000, "rerun link rows": 2000, "mqtt summary": 7}
    assert delivered({}, sends, {}, {}) == 1.0
    before = {("mqtt", DropCause.LANE_FULL): 50}
    assert delivered({}, sends, before, before) == 1.0, "what was lost before is not counted"
    after = {("mqtt", DropCause.LANE_FULL): 300}
    assert delivered({}, sends, before, after) == 0.8
    assert delivered({}, sends, {}, {("rerun video", DropCause.LANE_FULL): 2000}) == 0.5
    assert delivered({}, sends, {}, {("rerun link", DropCause.DISCONNECTED): 2000}) == 0.5
    assert delivered(sends, sends, {}, {("mqtt landmarks", DropCause.SLOW_RECEIVER): 3}) == 0.0
    assert delivered({}, {}, {}, {("camera bench0", DropCause.NEWER_FRAME): 9}) == 1.0


def test_loops_that_are_compared_need_no_more_than_they_say() -> None:
    assert {*FREE_RUNNING, Loop.PACED_ALL} >= WITH_BROKER | WITH_RERUN


@pytest.mark.integration
def test_a_daemon_that_ends_early_is_stopped_once_and_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "damaged.task"
    damaged.write_text("not a model")
    stop, stops = App.stop, list[App]()

    def counted(app: App) -> None:
        stops.append(app)
        stop(app)

    monkeypatch.setattr(App, "stop", counted)
    with pytest.raises(ModelError, match="can't load it"):
        measure(Task(Loop.POOL, str(damaged), 0.5))
    assert len(stops) == 1


@pytest.mark.integration
def test_two_cameras_count_together(model: Path) -> None:
    measured = run(Task(Loop.POOL, str(model), 0.5, cameras=2, workers=2))
    assert measured.frames_per_s > 0
    assert measured.cpu_ms > 0
    assert measured.with_people == pytest.approx(1.0)
    assert measured.overhead is None
    assert measured.workers == 4


@pytest.mark.integration
def test_every_frame_gets_to_the_broker_and_to_rerun(model: Path, tmp_path: Path) -> None:
    with mosquitto() as broker, rerun_server() as hub, subscriber(broker.port) as outside:
        measured = run(Task(Loop.ALL, str(model), 1.0, broker=broker.url, hub=hub.url))
        told = [json.loads(payload)["seq"] for payload in outside.payloads("pose/v1/bench/camera/bench0/landmarks")]
        seen = received(hub.url, tmp_path / "seen.rrd", expect=dict.fromkeys(ENTITIES, len(told)))
    assert measured.delivered == 1.0
    assert measured.with_people == pytest.approx(1.0)
    # The first pose may be there before the broker is; from then on nothing is missing.
    assert told == list(range(told[0], told[0] + len(told)))
    assert len(told) > measured.frames_per_s * 1.0
    assert {entity: set(told) - set(seen[entity]) for entity in ENTITIES} == {entity: set() for entity in ENTITIES}
    assert all(len(set(seen[entity])) == len(seen[entity]) for entity in ENTITIES)
