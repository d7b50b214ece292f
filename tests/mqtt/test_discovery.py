from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.mqtt.discovery import device_config
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1

TOPICS = Topics("pose/v1", "hall-pi")
OF_DEVICE = {"temperature", "cpu", "memory", "restart"}
OF_CAMERA = {"presence", "people", "posture", "fall", "fps", "status", "event", "pause", "snapshot", "capture"}
NAMES = st.from_regex(r"[A-Za-z0-9_-]{1,8}", fullmatch=True)


def about(
    *cameras: str,
    commands: list[str] | None = None,
    summary_hz: float | msgspec.UnsetType = 5.0,
    versions: dict[str, str] | None = None,
) -> v1.Info:
    return v1.Info(
        device=TOPICS.device,
        session="20260101T000000Z-0badcafe",
        started_us=1_767_225_600_000_000,
        versions={"edge-pose": "1.2.3", "python": "3.11.2"} if versions is None else versions,
        board="Raspberry Pi 5 Model B Rev 1.0",
        model=v1.ModelInfo(name="full", sha256="0" * 64),
        max_people=1,
        segmentation=True,
        skeleton=v1.SkeletonInfo(name="two", keypoints=["nose", "left_eye"], connections=[(0, 1)]),
        cameras={camera: v1.CameraInfo(source="rtsp") for camera in cameras},
        landmarks=v1.StreamInfo(content_type=v1.JSON),
        summary=v1.StreamInfo(content_type=v1.JSON, hz=summary_hz),
        commands=list(v1.REQUESTS) if commands is None else commands,
        settings={},
        keeps=True,
    )


def config(info: v1.Info, topics: Topics = TOPICS, before: v1.Info | None = None) -> Any:
    return json.loads(device_config(topics, info, before=before))


def components(info: v1.Info, topics: Topics = TOPICS) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = config(info, topics)["cmps"]
    return found


def commands(component: dict[str, Any]) -> Iterator[str]:
    yield from (component[key] for key in ("payload_on", "payload_off", "payload_press") if key in component)


def test_the_device_says_what_it_is() -> None:
    told = config(about("front"))

    assert told["dev"] == {
        "identifiers": ["edge-pose/hall-pi"],
        "name": "hall-pi",
        "manufacturer": "edge-pose",
        "model": "Raspberry Pi 5 Model B Rev 1.0",
        "sw_version": "1.2.3",
    }
    assert told["o"] == {"name": "edge-pose", "sw_version": "1.2.3"}


def test_a_version_that_is_not_known_is_not_named() -> None:
    told = config(about("front", versions={}))

    assert "sw_version" not in told["dev"] | told["o"]


def test_every_camera_has_the_same_components_and_the_device_its_own() -> None:
    assert set(components(about("front", "yard"))) == OF_DEVICE | {
        f"{camera}_{what}" for camera in ("front", "yard") for what in OF_CAMERA
    }


def test_every_component_has_a_platform_a_name_and_an_identity_that_stays() -> None:
    first, again = components(about("front", "yard")), components(about("yard", "gate", "front", commands=["set"]))

    assert all(component["p"] and component["name"] for component in first.values())
    assert first["cpu"]["unique_id"] == "edge-pose/hall-pi/cpu"
    assert first["front_presence"]["unique_id"] == "edge-pose/hall-pi/front/presence"
    shared = first.keys() & again.keys()
    assert {key: first[key]["unique_id"] for key in shared} == {key: again[key]["unique_id"] for key in shared}


@given(st.dictionaries(NAMES, st.sets(NAMES, max_size=4), min_size=1, max_size=4))
def test_no_two_things_of_a_fleet_have_the_same_identity(fleet: dict[str, set[str]]) -> None:
    told = [components(about(*cameras), Topics("pose/v1", device)) for device, cameras in fleet.items()]
    identities = [component["unique_id"] for device in told for component in device.values()]

    assert len(set(identities)) == len(identities)
    assert len(identities) == sum(
        len(OF_DEVICE) + len(OF_CAMERA) * len(cameras) for cameras in fleet.values()
    )  # no component took another's key


def test_names_of_a_camera_that_look_like_anothers_component_are_kept_apart() -> None:
    told = components(about("front", "front_presence", "presence"))

    assert len(told) == len(OF_DEVICE) + 3 * len(OF_CAMERA)


def test_only_the_word_online_makes_it_available() -> None:
    (availability,) = config(about("front"))["availability"]

    assert availability == {
        "topic": TOPICS.state,
        "payload_available": v1.DeviceState.ONLINE,
        "payload_not_available": v1.DeviceState.OFFLINE,
        # By itself Home Assistant would ignore `stopped`.
        "value_template": "{{ 'online' if value == 'online' else 'offline' }}",
    }


@pytest.mark.parametrize("what", ["presence", "people"])
def test_nobody_is_shown_by_a_camera_that_gives_nothing(what: str) -> None:
    component = components(about("front"))[f"front_{what}"]

    assert [it["topic"] for it in component["availability"]] == [TOPICS.state, TOPICS.status("front")]
    assert component["availability_mode"] == "all"
    assert "availability_topic" not in component  # Home Assistant refuses both
    assert component["expire_after"] == 30


@pytest.mark.parametrize(("hz", "expire_after_s"), [(0.01, 300), (0.07, 43), (0.1, 30), (5.0, 30), (msgspec.UNSET, 30)])
def test_presence_outlasts_rare_summaries(hz: float | msgspec.UnsetType, expire_after_s: int) -> None:
    assert components(about("front", summary_hz=hz))["front_presence"]["expire_after"] == expire_after_s


def test_topics_are_those_of_the_device() -> None:
    told = components(about("front"))
    topics = {key: {k: v for k, v in it.items() if k.endswith("_topic")} for key, it in told.items()}

    health = {"state_topic": TOPICS.health}
    status, summary = TOPICS.status("front"), {"state_topic": TOPICS.summary("front")}
    assert topics == {
        "temperature": health,
        "cpu": health,
        "memory": health,
        "restart": {"command_topic": TOPICS.command("restart")},
        "front_presence": summary,
        "front_people": summary,
        "front_posture": summary,
        "front_fall": summary,
        "front_fps": health,
        "front_status": {"state_topic": status},
        "front_event": {"state_topic": TOPICS.event("front")},
        "front_pause": {"command_topic": TOPICS.command("set"), "state_topic": status},
        "front_snapshot": {"image_topic": TOPICS.snapshot("front")},
        "front_capture": {"command_topic": TOPICS.command("snapshot")},
    }


def test_commands_are_ones_that_the_device_takes() -> None:
    found = 0
    for component in components(about("front", "back-yard_2")).values():
        if "command_topic" not in component:
            continue
        verb = component["command_topic"].removeprefix(TOPICS.command(""))
        assert (component["qos"], component["retain"]) == (1, False)
        for payload in commands(component):
            msgspec.json.decode(payload, type=v1.REQUESTS[verb])
            found += 1
    assert found == 7  # one of the device; two of the switch and one of the button, of each camera


def test_commands_mean_what_their_names_say() -> None:
    told = components(about("front"))

    assert msgspec.json.decode(told["front_pause"]["payload_on"], type=v1.Set) == v1.Set(
        values={"camera.front.paused": True}, keep=True
    )
    assert msgspec.json.decode(told["front_pause"]["payload_off"], type=v1.Set) == v1.Set(
        values={"camera.front.paused": False}, keep=True
    )
    assert msgspec.json.decode(told["front_capture"]["payload_press"], type=v1.Snapshot) == v1.Snapshot(camera="front")
    assert told["restart"]["payload_press"] == "{}"


@pytest.mark.parametrize(
    ("verb", "needed_by"),
    [("set", {"front_pause"}), ("snapshot", {"front_snapshot", "front_capture"}), ("restart", {"restart"})],
)
def test_what_needs_a_verb_that_is_not_obeyed_is_left_out(verb: str, needed_by: set[str]) -> None:
    everything = components(about("front"))
    obeyed = [it for it in v1.REQUESTS if it != verb]

    assert everything.keys() - components(about("front", commands=obeyed)).keys() == needed_by


def test_without_verbs_nothing_commands() -> None:
    assert not [key for key, it in components(about("front", commands=[])).items() if "command_topic" in it]


def test_what_was_there_before_is_taken_away() -> None:
    before, now = about("front", "yard"), about("front", "gate", commands=["snapshot", "restart"])

    told = config(now, before=before)["cmps"]

    gone = {key: told[key] for key in told.keys() - components(now).keys()}
    assert gone == {
        "front_pause": {"p": "switch"},
        "yard_presence": {"p": "binary_sensor"},
        "yard_people": {"p": "sensor"},
        "yard_posture": {"p": "sensor"},
        "yard_fall": {"p": "binary_sensor"},
        "yard_fps": {"p": "sensor"},
        "yard_status": {"p": "sensor"},
        "yard_event": {"p": "event"},
        "yard_pause": {"p": "switch"},
        "yard_snapshot": {"p": "image"},
        "yard_capture": {"p": "button"},
    }
    assert {key: it for key, it in told.items() if key not in gone} == components(now)


def test_nothing_is_taken_away_where_all_is_still_there() -> None:
    assert device_config(TOPICS, about("front"), before=about("front")) == device_config(TOPICS, about("front"))


def test_words_are_those_of_the_wire() -> None:
    told = components(about("front"))

    assert told["front_status"]["options"] == ["online", "stalled", "reconnecting", "paused", "disabled"]
    assert told["front_pause"]["state_on"] == v1.CameraState.PAUSED
    assert told["front_pause"]["state_off"] not in set(v1.CameraState)
    kinds = ["camera_lost", "camera_back", "camera_ended", "interrupted", "events_lost", "person_entered"]
    assert told["front_event"]["event_types"][:6] == kinds
    assert told["front_posture"]["options"] == ["standing", "sitting", "crouching", "lying", "unknown"]


@pytest.mark.parametrize("kind", get_args(v1.Event))
def test_every_event_is_announced(kind: type[msgspec.Struct]) -> None:
    assert kind.__struct_config__.tag in components(about("front"))["front_event"]["event_types"]


def test_templates_ask_for_fields_that_the_messages_have() -> None:
    fields: dict[str, set[str]] = {
        TOPICS.health: {field for kind in (v1.Health, v1.CameraHealth) for field in kind.__struct_fields__} | {"front"},
        TOPICS.summary("front"): {*v1.Summary.__struct_fields__, *v1.PersonSummary.__struct_fields__},
        TOPICS.event("front"): {*v1.CameraLost.__struct_fields__, "type"},
        TOPICS.status("front"): set(),
    }

    for key, component in components(about("front")).items():
        if (template := component.get("value_template")) is None:
            continue
        assert "value_json." not in template.replace("value_json.get(", ""), key  # what is absent would be logged
        asked = set(re.findall(r"\.get\('([^']+)'", template))
        assert asked <= fields[component["state_topic"]], key


def test_numbers_have_a_class_and_what_has_a_unit_names_it() -> None:
    told = components(about("front"))
    numbers = {key: it for key, it in told.items() if it["p"] == "sensor" and it.get("device_class") != "enum"}

    assert {key: it.get("unit_of_measurement") for key, it in numbers.items()} == {
        "temperature": "°C",
        "cpu": "%",
        "memory": "MB",
        "front_people": None,
        "front_fps": "fps",
    }
    assert {it["state_class"] for it in numbers.values()} == {"measurement"}
    assert not told["front_status"].keys() & {"state_class", "unit_of_measurement"}  # an enum has neither


def test_what_is_about_the_machine_stands_apart() -> None:
    categories = {key: it.get("entity_category") for key, it in components(about("front")).items()}

    assert {key for key, category in categories.items() if category == "diagnostic"} == {
        "temperature",
        "cpu",
        "memory",
        "front_fps",
        "front_status",
    }
    assert {key for key, category in categories.items() if category == "config"} == {"restart"}
