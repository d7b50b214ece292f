from __future__ import annotations

from edge.mqtt.topics import Topics


def test_topics_are_those_of_the_contract() -> None:
    topics = Topics("pose/v1", "hall-pi")

    assert topics.state == "pose/v1/hall-pi/state"
    assert topics.info == "pose/v1/hall-pi/info"
    assert topics.landmarks("front") == "pose/v1/hall-pi/camera/front/landmarks"
    assert topics.summary("front") == "pose/v1/hall-pi/camera/front/summary"
    assert topics.camera_of_status(topics.status("front")) == "front"
    for other in (topics.state, topics.event("front"), "pose/v1/other/camera/front/status", topics.status("a/b")):
        assert topics.camera_of_status(other) is None
