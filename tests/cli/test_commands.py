"""Commands over MQTT to `edge-pose run` as a process, through a real broker, from an outside client."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from edge.estimators.models.store import ModelStore
from edge.mqtt.wire import v1
from tests.cli.conftest import PREFIX, Configure, Daemon, landmarks, states, statuses
from tests.cli.test_reload import reload
from tests.conftest import eventually
from tests.mqtt.test_sink import Subscriber
from tests.rerun_log.reading import rows

pytestmark = [pytest.mark.system, pytest.mark.usefixtures("model")]

Start = Callable[..., Daemon]

_numbers = itertools.count(1)


def tell(outside: Subscriber, verb: str, payload: object = None, timeout_s: float = 30.0) -> v1.Reply:
    """Send a command and wait for its reply."""
    wanted = f"{PREFIX}/reply/test/{next(_numbers)}"
    content = b"{}" if payload is None else payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    outside.send(f"{PREFIX}/cmd/{verb}", content, ResponseTopic=wanted, CorrelationData=wanted.encode())
    eventually(lambda: outside.payloads(wanted), timeout_s)
    (message,) = [message for message in list(outside.messages) if message.topic == wanted]
    assert message.properties.CorrelationData == wanted.encode()
    assert message.qos == 1
    return msgspec.json.decode(message.payload, type=v1.Reply)


def told(outside: Subscriber, verb: str, payload: object = None, timeout_s: float = 30.0) -> dict[str, Any]:
    """The result of a command that is carried out."""
    reply = tell(outside, verb, payload, timeout_s)
    assert reply.ok, reply.error
    assert reply.verb == verb
    return {} if reply.result is msgspec.UNSET else reply.result


def refused(outside: Subscriber, verb: str, payload: object = None, timeout_s: float = 30.0) -> tuple[str, str]:
    """Code and text of the error of a command that is not carried out."""
    reply = tell(outside, verb, payload, timeout_s)
    assert isinstance(reply.error, v1.CommandError)
    assert len(reply.error.text.splitlines()) == 1
    return reply.error.code.value, reply.error.text


def information(outside: Subscriber) -> dict[str, Any]:
    found: dict[str, Any] = outside.newest(f"{PREFIX}/info")
    return found


def goes_on(outside: Subscriber, camera: str = "front") -> None:
    seen = len(landmarks(outside, camera))
    eventually(lambda: len(landmarks(outside, camera)) > seen + 5, 30)


def seqs(outside: Subscriber) -> list[int]:
    return [message["seq"] for message in landmarks(outside)]


def test_ping_reload_and_ids(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure()
    daemon = start()
    result = told(outside, "ping")
    assert result["session"] == information(outside)["session"]
    assert 0 < result["uptime_s"] < 60

    outside.send(f"{PREFIX}/cmd/ping", '{"id": "7"}')
    eventually(lambda: outside.payloads(f"{PREFIX}/reply/ping"))
    assert outside.newest(f"{PREFIX}/reply/ping")["id"] == "7"

    assert told(outside, "reload") == {"exchanged": []}
    configure(mqtt="landmarks_hz = 5")
    assert told(outside, "reload") == {"exchanged": ["mqtt streams"]}
    configure(mqtt="landmark_hz = 5")
    code, text = refused(outside, "reload")
    assert code == "invalid"
    assert "mqtt.landmark_hz: unknown key; did you mean landmarks_hz?" in text
    assert daemon.stop() == 0
    eventually(lambda: states(outside) == [b"online", b"stopped"])


def test_each_way_to_be_refused(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure(mqtt='landmarks_hz = 10\ncommands = ["ping", "snapshot", "pause", "set", "record"]')
    daemon = start("--set", "mqtt.summary_hz=3")
    assert information(outside)["commands"] == ["ping", "snapshot", "pause", "set", "record"]
    cases: list[tuple[str, object, str, str]] = [
        ("fly", None, "unknown_verb", "those are: ping, snapshot, pause, set, record"),
        ("restart", None, "unknown_verb", "no verb that this device obeys"),
        ("ping", b"{", "malformed", "payload of ping: "),
        ("set", {"values": {}}, "malformed", "payload of set: "),
        ("ping", b"{}".ljust(8193), "oversized", "8193 bytes; a command has 8192 at most"),
        ("pause", {"camera": "back"}, "invalid", "there is none of that name; cameras: front"),
        ("snapshot", {"camera": "back"}, "invalid", "there is none of that name; cameras: front"),
        ("set", {"values": {"mqtt.url": "mqtt://stranger"}}, "invalid", "mqtt.url: can't be set at run time"),
        ("set", {"values": {"mqtt.landmarks_hz": 0}}, "invalid", "a number from 0.01 to 1000, or 'unlimited'"),
        ("set", {"values": {"log_level": "debug", "pose.modle": "lite"}}, "invalid", "pose.modle: can't be set"),
        ("set", {"values": {"camera.back.paused": True}}, "invalid", "there is none of that name; cameras: front"),
        ("set", {"values": {"pose.model": "/etc/passwd"}}, "invalid", "expected one of lite, full, heavy"),
        ("set", {"values": {"mqtt.summary_hz": 1}}, "invalid", "stands in --set, which counts for more"),
        ("record", {"on": True}, "invalid", "rerun.record_dir is not set"),
        ("set", {"values": {"log_level": "debug"}, "keep": True}, "failed", "set state_dir"),
    ]
    before = information(outside)
    for verb, payload, code, text in cases:
        found = refused(outside, verb, payload)
        assert found[0] == code, (verb, payload, found)
        assert text in found[1]
    assert information(outside) == before
    assert told(outside, "set", {"values": {"mqtt.summary_hz": None}}) == {"exchanged": [], "settings": {}}
    goes_on(outside)
    assert daemon.stop() == 0
    assert " DEBUG " not in daemon.log
    assert "Traceback" not in daemon.log
    eventually(lambda: states(outside) == [b"online", b"stopped"])


def test_a_retained_command_is_refused_at_each_start_and_never_carried_out(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    outside.send(f"{PREFIX}/cmd/restart", "{}", retain=True).wait_for_publish(5)
    configure()
    daemon = start()
    eventually(lambda: outside.payloads(f"{PREFIX}/reply/restart"))
    assert outside.newest(f"{PREFIX}/reply/restart")["error"]["code"] == "retained"
    goes_on(outside)
    assert daemon.stop() == 0


def test_a_snapshot_is_the_picture_as_it_is(outside: Subscriber, configure: Configure, start: Start) -> None:
    more = '[camera.drawn]\nsource = "synthetic"\nwidth_px = 320\nheight_px = 240\n'
    configure(more=more, mqtt='landmarks_hz = "unlimited"')
    daemon = start()
    eventually(lambda: landmarks(outside, "drawn"), 30)
    code, text = refused(outside, "snapshot")
    assert (code, text) == ("invalid", "command: camera: is required where there are several: front, drawn")
    for camera, width_px, height_px in (("front", 640, 480), ("drawn", 320, 240)):
        result = told(outside, "snapshot", {"camera": camera})
        (message,) = [each for each in outside.messages if each.topic == f"{PREFIX}/camera/{camera}/snapshot"]
        assert (result["camera"], result["width_px"], result["height_px"]) == (camera, width_px, height_px)
        assert result["bytes"] == len(message.payload)
        assert ("seq", str(result["seq"])) in message.properties.UserProperty
        picture = cv2.imdecode(np.frombuffer(message.payload, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        assert picture.shape == (height_px, width_px, 3)
        assert picture.std() > 10, "there is something to see"
        if camera == "front":  # a file, each of whose frames is estimated
            moment = result["seq"], result["t_us"]
            eventually(lambda moment=moment: moment in [(each["seq"], each["t_us"]) for each in landmarks(outside)])  # type: ignore[misc]
    assert daemon.stop() == 0


def test_a_camera_is_let_go_of_and_taken_up_again(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure(more='[camera.drawn]\nsource = "synthetic"\n')
    daemon = start()
    eventually(lambda: landmarks(outside, "drawn") and statuses(outside)[-1] == b"online", 30)
    result = told(outside, "pause", {"camera": "front"})
    assert result == {"exchanged": ["pause of front"], "settings": {"camera.front.paused": True}}
    eventually(lambda: statuses(outside)[-1] == b"paused")
    goes_on(outside, "drawn")
    code, text = refused(outside, "snapshot", {"camera": "front"})
    assert (code, text) == ("failed", "camera front gives no picture now, it is paused")
    eventually(lambda: information(outside)["settings"] == {"camera.front.paused": True})

    assert told(outside, "pause")["exchanged"] == ["pause of drawn"]
    eventually(lambda: statuses(outside, "drawn")[-1] == b"paused")

    def published() -> tuple[int, int]:
        return len(landmarks(outside)), len(landmarks(outside, "drawn"))

    def stands_still() -> bool:
        seen = published()
        assert told(outside, "ping")
        return published() == seen

    eventually(stands_still, 30)  # when what was captured before is published
    assert stands_still()

    assert told(outside, "resume")["exchanged"] == ["pause of front", "pause of drawn"]
    for camera in ("front", "drawn"):
        eventually(lambda camera=camera: statuses(outside, camera)[-1] == b"online")  # type: ignore[misc]
        goes_on(outside, camera)
    assert daemon.stop() == 0
    found = seqs(outside)
    assert found == sorted({*found}), "it goes on counting"
    eventually(lambda: states(outside) == [b"online", b"stopped"])
    told_of = {json.loads(payload)["type"] for payload in outside.payloads(f"{PREFIX}/camera/front/event")}
    assert not told_of & {"camera_lost", "camera_back"}, "nobody missed it"
    assert "interrupted" in told_of, "whoever was there is not watched while it is paused"


@pytest.fixture
def models(tmp_path: Path, model: Path) -> Path:
    """A directory of models that has `full` alone."""
    directory = tmp_path / "models"
    directory.mkdir()
    (directory / "pose_landmarker_full.task").symlink_to(model)
    return directory


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A directory that `lite` is fetched from."""
    kept = os.environ.get("EDGE_POSE_TEST_MODELS")
    lite = ModelStore(Path(kept) if kept else None).ensure("lite").path
    directory = tmp_path / "mirror"
    directory.mkdir()
    (directory / "pose_landmarker_lite.task").symlink_to(lite)
    return directory


def test_another_model_takes_over_without_a_frame_lost(
    outside: Subscriber, configure: Configure, start: Start, models: Path, mirror: Path
) -> None:
    recordings = models.parent / "recordings"
    more = f'[pose]\nmodel_dir = "{models}"\nmodel_source = "{mirror}"\n[rerun]\nrecord_dir = "{recordings}"\n'
    configure(mqtt='landmarks_hz = "unlimited"', more=more)
    daemon = start()
    result = told(outside, "set", {"values": {"pose.model": "lite"}})
    assert result == {"exchanged": ["rerun", "pose of front"], "settings": {"pose.model": "lite"}}
    eventually(lambda: information(outside)["model"]["name"] == "lite")
    goes_on(outside)
    assert told(outside, "set", {"values": {"pose.max_people": 2, "pose.segmentation": False}})["exchanged"] == [
        "rerun",
        "pose of front",
    ]
    eventually(lambda: information(outside)["max_people"] == 2)
    goes_on(outside)
    assert told(outside, "set", {"values": {"pose.model": None}})["settings"] == {
        "pose.max_people": 2,
        "pose.segmentation": False,
    }
    eventually(lambda: information(outside)["model"]["name"] == "full")
    goes_on(outside)
    assert daemon.stop() == 0

    found = seqs(outside)
    assert found == list(range(len(found))), "not a frame was lost"
    eventually(lambda: states(outside) == [b"online", b"stopped"])
    assert statuses(outside)[-1] != b"reconnecting"
    assert "fetching model lite" in daemon.log
    assert len(list(recordings.glob("*.rrd"))) == 4, "a recording is of one model"


def test_more_workers_and_fewer_take_over_without_a_frame_lost(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(mqtt='landmarks_hz = "unlimited"', more="[pose]\nworkers = 1\n")
    daemon = start()
    goes_on(outside)
    assert told(outside, "set", {"values": {"pose.workers": 3}})["exchanged"] == ["pose of front"]

    def at_work() -> int | None:
        found: int | None = outside.newest(f"{PREFIX}/health")["cameras"]["front"].get("workers")
        return found

    eventually(lambda: at_work() == 3, 30)
    assert told(outside, "set", {"values": {"pose.workers": 1}})["settings"] == {"pose.workers": 1}
    goes_on(outside)
    assert refused(outside, "set", {"values": {"pose.workers": 0}})[0] == "invalid"
    assert daemon.stop() == 0

    found = seqs(outside)
    assert found == list(range(len(found))), "not a frame was lost"


def test_a_model_that_can_not_be_had_changes_nothing(
    outside: Subscriber, configure: Configure, start: Start, models: Path
) -> None:
    configure(mqtt='landmarks_hz = "unlimited"', more=f'[pose]\nmodel_dir = "{models}"\nmodel_source = "off"\n')
    daemon = start()
    before = information(outside)
    code, text = refused(outside, "set", {"values": {"pose.model": "lite", "mqtt.summary_hz": 1}})
    assert code == "failed"
    assert text.startswith("model lite")
    goes_on(outside)
    assert information(outside) == before
    assert told(outside, "set", {"values": {"log_level": "info"}})["settings"] == {"log_level": "info"}

    (models / "pose_landmarker_lite.task").write_bytes(b"damaged")
    assert refused(outside, "set", {"values": {"pose.model": "lite"}})[0] == "failed"
    goes_on(outside)
    assert daemon.stop() == 0
    found = seqs(outside)
    assert found == list(range(len(found)))


def test_recording_begins_and_ends(tmp_path: Path, outside: Subscriber, configure: Configure, start: Start) -> None:
    configure(more=f'[rerun]\nrecord_dir = "{tmp_path}/recordings"\nrecord = false\n')
    daemon = start()
    recordings = tmp_path / "recordings"
    assert not list(recordings.glob("*.rrd"))
    assert told(outside, "record", {"on": True}) == {"exchanged": ["rerun"], "settings": {"rerun.record": True}}
    eventually(lambda: list(recordings.glob("*.rrd")))
    (recording,) = recordings.glob("*.rrd")
    goes_on(outside)
    assert told(outside, "record", {"on": False})["exchanged"] == ["rerun"]
    recorded = rows(recording)["/camera/front/video/pose/points"]
    assert recorded == list(range(recorded[0], recorded[0] + len(recorded)))
    assert told(outside, "record", {"on": False})["exchanged"] == []
    goes_on(outside)
    assert daemon.stop() == 0
    assert [*recordings.glob("*.rrd")] == [recording]


def test_what_is_to_be_kept_is_in_force_after_a_restart(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(top=f'state_dir = "{tmp_path}/state"', more='[camera.drawn]\nsource = "synthetic"\n')
    daemon = start()
    told(outside, "set", {"values": {"mqtt.landmarks_hz": 5, "mqtt.summary_hz": 1}, "keep": True})
    told(outside, "set", {"values": {"mqtt.landmarks_hz": 8}})
    told(outside, "pause", {"camera": "drawn", "keep": True})
    kept = {"mqtt.landmarks_hz": 5, "mqtt.summary_hz": 1, "camera.drawn.paused": True}
    assert json.loads((tmp_path / "state/settings.json").read_text()) == kept
    assert daemon.stop() == 0

    daemon = start("--set", "mqtt.summary_hz=2")
    eventually(lambda: states(outside)[-1] == b"online" and statuses(outside, "drawn")[-1] == b"paused")
    info = information(outside)
    assert info["settings"] == kept
    assert (info["landmarks"]["hz"], info["summary"]["hz"]) == (5, 2), "--set counts for more"
    told(outside, "set", {"values": {"mqtt.landmarks_hz": None}, "keep": True})
    told(outside, "resume", {"keep": True})
    assert json.loads((tmp_path / "state/settings.json").read_text()) == {
        "mqtt.summary_hz": 1,
        "camera.drawn.paused": False,
        "camera.front.paused": False,
    }
    assert daemon.stop() == 0


def test_what_was_kept_and_is_not_valid_any_more_is_told_and_left_out(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    (tmp_path / "state").mkdir()
    kept = {"camera.gone.paused": True, "pose.max_people": 99, "mqtt.landmarks_hz": 5}
    (tmp_path / "state/settings.json").write_text(json.dumps(kept))
    configure(top=f'state_dir = "{tmp_path}/state"')
    daemon = start()
    assert information(outside)["settings"] == {"mqtt.landmarks_hz": 5}
    warnings = [line for line in daemon.log.splitlines() if " WARNING " in line]
    assert len(warnings) == 2
    assert all("kept setting not in force" in line for line in warnings)
    assert daemon.stop() == 0

    (tmp_path / "state/settings.json").write_text("{")
    daemon = start()
    (line,) = [line for line in daemon.log.splitlines() if " WARNING " in line]
    assert f"nothing that was kept is in force: {tmp_path}/state/settings.json" in line
    assert daemon.stop() == 0


def test_what_can_not_be_kept_is_taken_back(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(top=f'state_dir = "{tmp_path}/state"')
    daemon = start()
    (tmp_path / "state").rename(tmp_path / "elsewhere")
    (tmp_path / "state").touch()
    code, text = refused(outside, "set", {"values": {"mqtt.landmarks_hz": 5}, "keep": True})
    assert code == "failed"
    assert f"{tmp_path}/state/settings.json can't be written" in text
    eventually(lambda: information(outside)["landmarks"]["hz"] == 10)
    assert information(outside)["settings"] == {}

    result = told(outside, "set", {"values": {"mqtt.landmarks_hz": 5}})
    assert result == {"exchanged": ["mqtt streams"], "settings": {"mqtt.landmarks_hz": 5}}, "for now is possible"
    assert daemon.stop() == 0


def test_a_restart_is_an_orderly_end_that_asks_to_be_started_again(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure()
    daemon = start()
    assert tell(outside, "restart").ok
    assert daemon.process.wait(timeout=6) == 75
    eventually(lambda: states(outside) == [b"online", b"stopped"])
    assert "stopping: a restart was asked for" in daemon.log


def test_a_flood_is_held_off_and_the_daemon_is_well(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure(mqtt='landmarks_hz = "unlimited"')
    daemon = start()
    kinds = (
        ("ping", "{}"),
        ("set", '{"values": {"mqtt.summary_hz": 5}}'),
        ("fly", ""),
        ("ping", "{"),
        ("snapshot", "{}"),
    )
    sent = [kinds[number % len(kinds)] for number in range(300)]
    for number, (verb, payload) in enumerate(sent):
        outside.send(f"{PREFIX}/cmd/{verb}", payload, CorrelationData=str(number).encode())

    def replies() -> dict[bytes, v1.Reply]:
        return {
            message.properties.CorrelationData: msgspec.json.decode(message.payload, type=v1.Reply)
            for message in list(outside.messages)
            if message.topic.startswith(f"{PREFIX}/reply/")
        }

    def ignored() -> int:
        health = outside.newest(f"{PREFIX}/health")
        return int(health["drops"].get("mqtt commands", {}).get("too_many", 0))

    eventually(lambda: len(replies()) + ignored() == 300, 30)
    found = replies()
    codes = [reply.error.code if isinstance(reply.error, v1.CommandError) else "ok" for reply in found.values()]
    assert {*codes} <= {"ok", "unknown_verb", "malformed", "busy", "too_frequent"}
    assert codes.count("ok") >= 1
    assert codes.count(v1.ErrorCode.TOO_FREQUENT) >= 30
    for number, reply in found.items():
        verb = sent[int(number)][0]
        assert reply.verb == (verb if verb in v1.REQUESTS else "unknown")

    def calm() -> bool:
        return tell(outside, "ping").ok

    time.sleep(0.2)  # two commands' worth of the limit
    eventually(calm, 10)
    goes_on(outside)
    seen = seqs(outside)
    assert seen == list(range(len(seen))), "and missed nothing meanwhile"
    assert daemon.stop() == 0
    eventually(lambda: states(outside) == [b"online", b"stopped"])


def test_a_camera_that_can_not_be_used_keeps_no_command_from_the_others(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    (tmp_path / "text.mp4").write_text("no film")
    configure(more=f'[camera.other]\nsource = "{tmp_path}/text.mp4"\n')
    daemon = start()
    eventually(lambda: "the other cameras go on" in daemon.log)
    assert told(outside, "ping", timeout_s=10)
    daemon.stop()


def test_a_camera_that_is_paused_can_be_taken_out_of_the_configuration(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(more='[camera.drawn]\nsource = "synthetic"\n')
    daemon = start()
    told(outside, "pause", {"camera": "drawn"})
    configure()
    reload(daemon, "reloaded: ")
    eventually(lambda: information(outside)["cameras"].keys() == {"front"})
    assert information(outside)["settings"] == {}
    assert daemon.stop() == 0


def test_what_can_not_be_kept_is_not_even_begun(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(more=f'[rerun]\nrecord_dir = "{tmp_path}/recordings"\nrecord = false\n')
    daemon = start()
    assert refused(outside, "record", {"on": True, "keep": True})[0] == "failed"
    assert not list((tmp_path / "recordings").glob("*.rrd"))
    assert daemon.stop() == 0


@pytest.mark.parametrize("on", [1, "true"])
def test_there_is_one_way_to_say_that_it_records(
    outside: Subscriber, configure: Configure, start: Start, on: object
) -> None:
    configure()
    daemon = start()
    assert refused(outside, "set", {"values": {"rerun.record": on}})[0] == "invalid"
    assert daemon.stop() == 0


def test_a_stranger_writes_no_lines_of_the_log(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure()
    daemon = start()
    key = "x\n2026-01-01 00:00:00 INFO edge.run: all is well\x1b[2J\r"
    for values in ({key: 1}, {"pose.model": key}, {"log_level": key}):
        refused(outside, "set", {"values": values})
    refused(outside, "snapshot", {"camera": "nobody"})
    assert daemon.stop() == 0
    assert "\x1b" not in daemon.log
    assert all("stays: 2026" not in line and not line.startswith("2026-01-01") for line in daemon.log.splitlines())


def test_whoever_asks_while_it_ends_is_answered_too(outside: Subscriber, configure: Configure, start: Start) -> None:
    configure()
    daemon = start()
    for verb in ("restart", "ping", "ping", "snapshot"):
        outside.send(f"{PREFIX}/cmd/{verb}", "{}")
    assert daemon.process.wait(timeout=6) == 75
    eventually(lambda: states(outside)[-1] == b"stopped")
    counts = {verb: len(outside.payloads(f"{PREFIX}/reply/{verb}")) for verb in ("restart", "ping", "snapshot")}
    assert counts == {"restart": 1, "ping": 2, "snapshot": 1}


def test_a_file_that_is_just_being_edited_keeps_nobody_from_pausing_a_camera(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    """What is written there counts from the next reload on."""
    configure()
    daemon = start()
    configure(mqtt="summary_hz = 1\nlandmark_hz = 5")
    assert told(outside, "pause")["exchanged"] == ["pause of front"]
    configure(mqtt="summary_hz = 1")
    assert told(outside, "resume")["exchanged"] == ["pause of front"]
    assert information(outside)["summary"]["hz"] == 5
    assert daemon.stop() == 0


def test_of_a_camera_that_is_paused_there_is_no_picture_from_the_moment_it_is_said(
    outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure()
    daemon = start()
    for _ in range(3):
        told(outside, "pause")
        assert refused(outside, "snapshot")[0] == "failed"
        told(outside, "resume")
    assert daemon.stop() == 0


def test_a_kept_model_that_is_not_to_be_had_keeps_nothing_from_starting(
    tmp_path: Path, model: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    models, state = tmp_path / "models", tmp_path / "state"
    models.mkdir()
    (models / model.name).symlink_to(model)
    state.mkdir()
    (state / "settings.json").write_text('{"pose.model": "heavy"}')
    configure(top=f'state_dir = "{state}"', more=f'[pose]\nmodel_dir = "{models}"\nmodel_source = "off"\n')
    daemon = start()
    assert "kept setting not in force: pose.model: " in daemon.log
    assert information(outside)["model"]["name"] == "full"
    assert "heavy" in (state / "settings.json").read_text(), "it may be there the next time"
    assert daemon.stop() == 0


def test_another_state_directory_takes_a_restart(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    configure(top=f'state_dir = "{tmp_path}/one"')
    daemon = start()
    configure(top=f'state_dir = "{tmp_path}/two"')
    assert refused(outside, "reload") == ("failed", "state_dir is another one: that takes a restart")
    assert daemon.stop() == 0


def test_a_pause_that_was_kept_waits_for_its_camera(
    tmp_path: Path, outside: Subscriber, configure: Configure, start: Start
) -> None:
    """Whoever wanted it for the sake of privacy does not want it gone with one mistake in the file."""
    drawn = '[camera.drawn]\nsource = "synthetic"\nfps = 5\n'
    configure(top=f'state_dir = "{tmp_path}/state"', more=drawn)
    daemon = start()
    told(outside, "pause", {"camera": "drawn", "keep": True})
    configure(top=f'state_dir = "{tmp_path}/state"')
    told(outside, "reload")
    told(outside, "set", {"values": {"mqtt.summary_hz": 1}, "keep": True})
    configure(top=f'state_dir = "{tmp_path}/state"', more=drawn)
    told(outside, "reload")
    eventually(lambda: statuses(outside, "drawn")[-1:] == [b"paused"])
    assert daemon.stop() == 0
