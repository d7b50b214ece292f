"""What the daemon knows, as messages; read by readers that know nothing of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any, NoReturn

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.mqtt import messages
from edge.mqtt.wire import v1
from edge.reports import CameraBack, CameraEnded, CameraLost, DeviceInfo, Event, EventsLost, Happening, Interrupted
from edge.vision.kinematics import JOINTS
from edge.vision.observation import Observation
from edge.vision.pose import Pose
from edge.vision.skeleton import MEDIAPIPE_POSE
from edge.vision.window import SummaryWindow
from tests.conftest import frame, observe, pose

HALF_A_DIGIT = 0.00005 + 1e-9
NUMBERS = st.floats(-100, 100, width=32)
FRACTIONS = st.floats(0, 1, width=32)
POSES = st.builds(
    Pose,
    skeleton=st.just(MEDIAPIPE_POSE),
    image_xyz=arrays(np.float32, (33, 3), elements=NUMBERS),
    visibility=arrays(np.float32, 33, elements=FRACTIONS),
    world_m=st.none() | arrays(np.float32, (33, 3), elements=NUMBERS),
)


def summed(*seen: Observation) -> v1.Summary:
    window = SummaryWindow()
    for each in seen:
        window.add(each)
    taken = window.take()
    assert taken is not None
    return messages.summary(taken, against_gravity=False)


def read(message: bytes) -> Any:
    """What a strict reader makes of it: UTF-8, and no NaN or Infinity, which JSON does not have."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(message.decode("utf-8"), parse_constant=refuse)


@given(st.lists(POSES, max_size=3), st.integers(0, 2**40))
@settings(deadline=None, max_examples=40)
def test_landmarks_arrive_as_they_were_to_half_the_last_digit(poses: list[Pose], seq: int) -> None:
    observation = observe(frame(seq=seq), poses)

    message = read(messages.landmarks(observation))

    assert (message["v"], message["seq"], message["t_us"]) == (1, seq, observation.captured_ns // 1000)
    assert [person["id"] for person in message["people"]] == list(range(1, len(poses) + 1))
    for sent, person in zip(poses, message["people"], strict=True):
        image = np.array(person["image"])
        assert image.shape == (33, 4)
        assert np.abs(image[:, :3] - sent.image_xyz).max() <= HALF_A_DIGIT
        assert np.abs(image[:, 3] - sent.visibility).max() <= HALF_A_DIGIT
        assert abs(person["score"] - sent.score) <= HALF_A_DIGIT
        assert ("world" in person) == (sent.world_m is not None)
        if sent.world_m is not None:
            world = np.array(person["world"])
            assert world.shape == (33, 3)
            assert np.abs(world - sent.world_m).max() <= HALF_A_DIGIT


@given(st.lists(POSES, max_size=3))
@settings(deadline=None, max_examples=40)
def test_cbor_brings_the_same_landmarks_as_json_and_all_their_digits(poses: list[Pose]) -> None:
    observation = observe(frame(seq=3), poses)

    binary = v1.decode_landmarks(messages.landmarks_binary(observation))
    text = v1.decode_landmarks(messages.landmarks(observation))

    assert (binary.seq, binary.t_us, len(binary.people)) == (text.seq, text.t_us, len(text.people))
    for sent, exact, rounded in zip(poses, binary.people, text.people, strict=True):
        assert exact.id == rounded.id
        assert abs(exact.score - rounded.score) <= HALF_A_DIGIT
        image = np.array(exact.image)
        assert (image == np.column_stack([sent.image_xyz, sent.visibility])).all()
        assert np.abs(image - np.array(rounded.image)).max() <= HALF_A_DIGIT
        assert (exact.world is msgspec.UNSET) == (rounded.world is msgspec.UNSET) == (sent.world_m is None)
        if sent.world_m is not None:
            assert (np.array(exact.world) == sent.world_m).all()
            assert np.abs(np.array(exact.world) - np.array(rounded.world)).max() <= HALF_A_DIGIT


@given(st.lists(POSES, max_size=3))
@settings(deadline=None, max_examples=40)
def test_a_summary_holds_box_centre_and_the_angles_that_can_be_seen(poses: list[Pose]) -> None:
    observation = observe(frame(), poses)

    message = read(v1.encode(summed(observation)))

    assert message["count"] == len(message["people"]) == len(poses)
    for person, sent in zip(observation.people, message["people"], strict=True):
        left, top, right, bottom = sent["box"]
        assert 0 <= left <= right <= 1
        assert 0 <= top <= bottom <= 1
        assert sent["centre"] == pytest.approx([(left + right) / 2, (top + bottom) / 2], abs=0.00011)
        if person.angles_deg is None:
            assert "angles" not in sent
            continue
        measured = dict(zip(JOINTS, person.angles_deg.tolist(), strict=True))
        assert set(sent.get("angles", {})) == {joint for joint, angle in measured.items() if not math.isnan(angle)}
        for joint, angle in sent.get("angles", {}).items():
            assert abs(angle - measured[joint]) <= 0.0501


def test_a_joint_that_is_not_seen_is_absent_from_the_summary() -> None:
    visibility = np.array(pose().visibility)
    visibility[MEDIAPIPE_POSE.index("left_wrist")] = 0.1

    (person,) = read(v1.encode(summed(observe(frame(), [replace(pose(), visibility=visibility)]))))["people"]

    assert set(JOINTS) - set(person["angles"]) == {"left_elbow", "left_wrist"}


def test_a_frame_without_people_is_a_message_too() -> None:
    empty = observe(frame(seq=3), [])
    captured_us = empty.captured_ns // 1000

    assert read(messages.landmarks(empty)) == {"v": 1, "seq": 3, "t_us": captured_us, "people": []}
    assert v1.decode_landmarks(messages.landmarks_binary(empty)) == v1.Landmarks(seq=3, t_us=captured_us, people=[])
    assert read(v1.encode(summed(empty))) == {
        "v": 1,
        "seq": 3,
        "t_us": captured_us,
        "frames": 1,
        "window_s": 0.0,
        "count": 0,
        "most": 0,
        "away": [],
        "people": [],
    }


def test_messages_are_compact() -> None:
    seen = observe(frame(), [pose()])
    sizes = {
        "landmarks as JSON": len(messages.landmarks(seen)),
        "landmarks as CBOR": len(messages.landmarks_binary(seen)),
        "summary": len(v1.encode(summed(seen))),
    }
    print(*(f"{what}: {size} bytes" for what, size in sizes.items()), sep="\n")

    assert b" " not in messages.landmarks(seen) + v1.encode(summed(seen))
    assert sizes["landmarks as JSON"] < 3500
    assert sizes["landmarks as CBOR"] < 1050  # of which 33 * 7 * 4 are the numbers
    assert sizes["summary"] < 1300


ABOUT = DeviceInfo(
    device="hall-pi",
    session="20260801T120000Z-0badcafe",
    started_ns=1_785_585_600_123_456_789,
    versions={"edge-pose": "0.1.0", "mediapipe": "1.2.2"},
    board="Raspberry Pi 5 Model B · Küche",
    model="full",
    model_sha256="4eaa",
    max_people=2,
    segmentation=True,
    privacy="full",
    skeleton=MEDIAPIPE_POSE,
    cameras={"front": "rtsp"},
    landmarks_hz=None,
    summary_hz=2.0,
    settings={"pose.model": "full"},
    keeps=True,
)


def test_info_says_what_the_device_is_and_how_to_read_its_landmarks() -> None:
    message = read(v1.encode(messages.info(ABOUT, landmarks_type=v1.CBOR, commands=["ping", "snapshot"])))

    skeleton = message.pop("skeleton")
    assert skeleton["name"] == "mediapipe_pose_33"
    assert tuple(skeleton["keypoints"]) == MEDIAPIPE_POSE.keypoints
    assert tuple(map(tuple, skeleton["connections"])) == MEDIAPIPE_POSE.connections
    assert message == {
        "v": 1,
        "device": "hall-pi",
        "session": "20260801T120000Z-0badcafe",
        "started_us": 1_785_585_600_123_456,
        "versions": {"edge-pose": "0.1.0", "mediapipe": "1.2.2"},
        "board": "Raspberry Pi 5 Model B · Küche",
        "model": {"name": "full", "sha256": "4eaa"},
        "max_people": 2,
        "segmentation": True,
        "privacy": "full",
        "cameras": {"front": {"source": "rtsp"}},
        "landmarks": {"content_type": "application/cbor"},
        "summary": {"content_type": "application/json", "hz": 2.0},
        "commands": ["ping", "snapshot"],
        "keeps": True,
        "settings": {"pose.model": "full"},
    }


@pytest.mark.parametrize(
    ("happened", "expected"),
    [
        (CameraLost("no frame for 5 s"), {"type": "camera_lost", "reason": "no frame for 5 s"}),
        (CameraBack(1.23456, of="s-1"), {"type": "camera_back", "away_s": 1.235, "of": "s-1"}),
        (CameraEnded("end of file"), {"type": "camera_ended", "reason": "end of file"}),
        (CameraEnded("no such host", of="s-1"), {"type": "camera_ended", "reason": "no such host", "of": "s-1"}),
        (Interrupted("r-7", "paused"), {"type": "interrupted", "of": "r-7", "reason": "paused"}),
        (EventsLost(3, 1_000, 2_999), {"type": "events_lost", "count": 3, "since_us": 1, "until_us": 2}),
    ],
)
def test_an_event_says_what_happened_and_no_more(happened: Happening, expected: dict[str, Any]) -> None:
    told = read(v1.encode(messages.event(Event("s-9", "front", 1_999, happened))))
    assert told == {"v": 1, "id": "s-9", "t_us": 1, "camera": "front", **expected}
