"""The contract on the brokers that people have: what each can do, and the daemon on each, seen by an outside client."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest

from edge.mqtt.wire import v1
from tests.cli.command import COMMAND, run_settings
from tests.conftest import eventually
from tests.servers import free_port
from tests.system.brokers import BROKERS, Broker, Client, Refused, Will

pytestmark = [pytest.mark.machine, pytest.mark.timeout(180)]


@pytest.fixture(scope="module", params=list(BROKERS))
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    with BROKERS[request.param]() as broker:
        yield broker


@pytest.fixture(scope="module")
def version(broker: Broker) -> str:
    """The highest MQTT version that the broker speaks."""
    return "5" if accepts(broker, "5") == "yes" else "3.1.1"


# --- what a broker can do, without anything of edge-pose

CAPABILITIES = """
capability                        mosquitto 2.0  ejabberd 23.01  ejabberd 24.12  rabbitmq 3.10  rabbitmq 4.0  aedes 0.51
MQTT 5                            yes            yes             yes             closes         yes           refused
MQTT 3.1.1                        yes            yes             yes             yes            yes           yes
QoS 1 both ways                   yes            yes             yes             yes            yes           yes
QoS 2                             yes            yes             yes             no             no            yes
retained                          yes            yes             yes             yes            yes           yes
retained, by a wildcard           yes            yes             yes             no             no            yes
retained is cleared               yes            yes             yes             yes            yes           yes
wildcards                         yes            yes             yes             yes            yes           yes
a dot in a topic                  yes            yes             yes             no             no            yes
300 kB                            yes            yes             yes             yes            yes           yes
5: content type, user properties  yes            yes             yes             -              yes           -
5: the same of a retained         yes            yes             yes             -              yes           -
5: response topic, correlation    yes            yes             yes             -              yes           -
5: retain as published            yes            yes             yes             -              yes           -
last will                         yes            yes             yes             yes            yes           yes
last will, retained               yes            yes             yes             yes            yes           yes
no will after a goodbye           yes            yes             yes             yes            yes           yes
online after a takeover           yes            yes             yes             yes            yes           yes
session is resumed                yes            yes             yes             yes            yes           yes
5: message expiry                 yes            yes             yes             -              yes           -
5: will delay                     yes            yes             yes             -              yes           -
5: will delay, then retained      yes            yes             yes             -              no            -
5: session expiry                 yes            yes             yes             -              yes           -
5: maximum packet size            yes            no              no              -              yes           -
5: receive maximum                yes            yes             yes             -              yes           -
"""
"""Looked at on Debian 12 and 13. A `no` is a broker's way, not a failure; the daemon has to get along with it."""

_UNSUPPORTED_VERSION = 132  # MQTT 5, table 2-6; paho gives the same number for 3.1.1's return code 1


def accepts(broker: Broker, version: str) -> str:
    try:
        with Client(broker, version):
            return "yes"
    except Refused as refused:
        return "refused" if refused.reason.value == _UNSUPPORTED_VERSION else "closes"


def retained_now(broker: Broker, version: str, *topics: str) -> list[bytes | None]:
    """What somebody gets who subscribes now; None where nothing is retained."""
    with Client(broker, version) as late:
        late.subscribe(*topics)
        for topic in topics:
            late.hears(topic, 0.5)
        return [next((message.payload for message in late.on(topic) if message.retain), None) for topic in topics]


def within(timeout_s: float, condition: Callable[[], bool]) -> bool:
    try:
        eventually(condition, timeout_s)
    except AssertionError:
        return False
    return True


def qos_1(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(topic)
    inside.publish(topic, "x")
    return outside.hears(topic) and outside.on(topic)[0].qos == 1


def qos_2(outside: Client, inside: Client, topic: str) -> bool:
    return outside.subscribe(topic, qos=2) == 2


def wildcards(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(f"{topic}/+/x/#")
    inside.publish(f"{topic}/a/x", "x")
    inside.publish(f"{topic}/a/x/y/z", "x")
    return outside.hears(f"{topic}/a/x") and outside.hears(f"{topic}/a/x/y/z")


def a_dot_in_a_topic(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(f"{topic}.local/x")
    inside.publish(f"{topic}.local/x", "x")
    return outside.hears(f"{topic}.local/x")


def big_payload(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(topic)
    inside.publish(topic, b"x" * 300_000)
    return outside.hears(topic) and len(outside.payloads(topic)[0]) == 300_000


# No broker promises that a message is retained as soon as it is acknowledged, so these look more than once.


def retained(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version) as inside:
        inside.publish(topic, "x", retain=True)
    return within(3, lambda: retained_now(broker, version, topic) == [b"x"])


def retained_by_wildcard(broker: Broker, version: str, topic: str) -> bool:
    if not retained(broker, version, f"{topic}/a/state"):
        return False
    with Client(broker, version) as late:
        late.subscribe(f"{topic}/+/state")
        return late.hears(f"{topic}/a/state")


def retained_is_cleared(broker: Broker, version: str, topic: str) -> bool:
    if not retained(broker, version, topic):
        return False
    with Client(broker, version) as inside:
        inside.publish(topic, "", retain=True)
    return within(3, lambda: retained_now(broker, version, topic) == [None])


def will(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version) as outside:
        outside.subscribe(topic)
        Client(broker, version, will=Will(topic, b"gone")).vanish()
        return outside.hears(topic)


def retained_will(broker: Broker, version: str, topic: str) -> bool:
    Client(broker, version, will=Will(topic, b"gone", retain=True)).vanish()
    return within(3, lambda: retained_now(broker, version, topic) == [b"gone"])


def no_will_after_a_goodbye(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version) as outside:
        outside.subscribe(topic)
        with Client(broker, version, will=Will(topic, b"gone")):
            pass
        with Client(broker, version) as inside:
            inside.publish(topic, "after")
        return outside.hears(topic) and outside.payloads(topic) == [b"after"]


def online_after_a_takeover(broker: Broker, version: str, topic: str) -> bool:
    """A client that comes back before the broker has missed it is not announced as gone for ever."""
    name, gone = f"device-{uuid.uuid4().hex[:8]}", Will(topic, b"offline", retain=True)
    with Client(broker, version, client_id=name, will=gone) as before:
        before.publish(topic, "online", retain=True)
        with Client(broker, version, client_id=name, will=gone) as after:
            after.publish(topic, "online", retain=True)
            eventually(lambda: before.closed)
            return within(3, lambda: retained_now(broker, version, topic) == [b"online"])


def session_is_resumed(broker: Broker, version: str, topic: str) -> bool:
    name = f"sleeper-{uuid.uuid4().hex[:8]}"
    with Client(broker, version, client_id=name, session_s=60) as sleeper:
        sleeper.subscribe(topic)
    with Client(broker, version) as inside:
        inside.publish(topic, "meanwhile")
    with Client(broker, version, client_id=name, session_s=60) as sleeper:
        return sleeper.session_present and sleeper.hears(topic)


# Those of MQTT 5.


def properties(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(topic)
    inside.publish(topic, "{}", ContentType="application/json", UserProperty=[("v", "1"), ("seq", "7")])
    if not outside.hears(topic):
        return False
    told = outside.on(topic)[0].properties.json()
    return (told.get("ContentType"), told.get("UserProperty")) == ("application/json", [("v", "1"), ("seq", "7")])


def request_and_response(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(topic)
    inside.publish(topic, "{}", ResponseTopic="some/where", CorrelationData=b"\x00\xff7")
    if not outside.hears(topic):
        return False
    told = outside.on(topic)[0].properties
    return (getattr(told, "ResponseTopic", None), getattr(told, "CorrelationData", None)) == (
        "some/where",
        b"\x00\xff7",
    )


def retain_as_published(outside: Client, inside: Client, topic: str) -> bool:
    outside.subscribe(topic, as_published=True)
    inside.publish(topic, "x", retain=True)
    return outside.hears(topic) and outside.on(topic)[0].retain


def properties_of_a_retained(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version) as inside:
        inside.publish(topic, "{}", retain=True, ContentType="application/json", UserProperty=[("v", "1")])
    eventually(lambda: retained_now(broker, version, topic) == [b"{}"])
    with Client(broker, version) as late:
        late.subscribe(topic)
        eventually(lambda: late.on(topic))
        told = late.on(topic)[0].properties.json()
    return (told.get("ContentType"), told.get("UserProperty")) == ("application/json", [("v", "1")])


def message_expiry(broker: Broker, version: str, topic: str) -> bool:
    """A retained message is given to nobody any more when its time is over."""
    with Client(broker, version) as inside:
        inside.publish(topic, "x", retain=True, MessageExpiryInterval=3)
    eventually(lambda: retained_now(broker, version, topic) == [b"x"])
    return within(6, lambda: retained_now(broker, version, topic) == [None])


def will_delay(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version) as outside:
        outside.subscribe(topic)
        Client(broker, version, session_s=60, will=Will(topic, b"gone", delay_s=2)).vanish()
        began_s = time.monotonic()
        return outside.hears(topic, 8) and time.monotonic() - began_s > 1


def retained_after_will_delay(broker: Broker, version: str, topic: str) -> bool:
    Client(broker, version, session_s=60, will=Will(topic, b"gone", retain=True, delay_s=1)).vanish()
    return within(5, lambda: retained_now(broker, version, topic) == [b"gone"])


def session_expiry(broker: Broker, version: str, topic: str) -> bool:
    """What is kept of a client goes a second after it has gone."""

    def forgotten() -> bool:
        with Client(broker, version, client_id=name, session_s=1) as sleeper:
            return not sleeper.session_present

    name = f"sleeper-{uuid.uuid4().hex[:8]}"
    with Client(broker, version, client_id=name, session_s=1):
        pass
    time.sleep(2)  # what is looked for happens when nobody looks: each look begins the second anew
    return forgotten()


def maximum_packet_size(broker: Broker, version: str, topic: str) -> bool:
    with Client(broker, version, MaximumPacketSize=1000) as small, Client(broker, version) as inside:
        small.subscribe(topic)
        inside.publish(topic, b"x" * 2000)
        inside.publish(topic, b"small")
        return small.hears(topic) and small.payloads(topic) == [b"small"]


def receive_maximum(broker: Broker, version: str, topic: str) -> bool:
    """No more than two at once for a client that says so, and the rest when it has acknowledged those."""
    with (
        Client(broker, version, acks=False, ReceiveMaximum=2) as slow,
        Client(broker, version) as quick,
        Client(broker, version) as inside,
    ):
        slow.subscribe(topic)
        quick.subscribe(topic)
        for number in range(5):
            inside.publish(topic, str(number))
        eventually(lambda: len(quick.on(topic)) == 5)
        slow.hears(topic)
        slow.round_trip()
        if len(slow.on(topic)) > 2:
            return False

        def all_come() -> bool:
            slow.acknowledge()
            return len(slow.on(topic)) == 5

        return within(5, all_come)


WITH_TWO_CLIENTS: dict[str, Callable[[Client, Client, str], bool]] = {
    "QoS 1 both ways": qos_1,
    "QoS 2": qos_2,
    "wildcards": wildcards,
    "a dot in a topic": a_dot_in_a_topic,
    "300 kB": big_payload,
}
WITH_CLIENTS_OF_ITS_OWN: dict[str, Callable[[Broker, str, str], bool]] = {
    "retained": retained,
    "retained, by a wildcard": retained_by_wildcard,
    "retained is cleared": retained_is_cleared,
    "last will": will,
    "last will, retained": retained_will,
    "no will after a goodbye": no_will_after_a_goodbye,
    "online after a takeover": online_after_a_takeover,
    "session is resumed": session_is_resumed,
}
WITH_TWO_CLIENTS_5: dict[str, Callable[[Client, Client, str], bool]] = {
    "5: content type, user properties": properties,
    "5: response topic, correlation": request_and_response,
    "5: retain as published": retain_as_published,
}
WITH_CLIENTS_OF_ITS_OWN_5: dict[str, Callable[[Broker, str, str], bool]] = {
    "5: the same of a retained": properties_of_a_retained,
    "5: message expiry": message_expiry,
    "5: will delay": will_delay,
    "5: will delay, then retained": retained_after_will_delay,
    "5: session expiry": session_expiry,
    "5: maximum packet size": maximum_packet_size,
    "5: receive maximum": receive_maximum,
}


def capabilities(broker: Broker, version: str) -> Iterator[tuple[str, str]]:
    for each in ("5", "3.1.1"):
        yield f"MQTT {each}", accepts(broker, each)
    for name, look in {**WITH_TWO_CLIENTS, **WITH_TWO_CLIENTS_5}.items():
        if version == "5" or name in WITH_TWO_CLIENTS:
            with Client(broker, version) as outside, Client(broker, version) as inside:
                yield name, "yes" if look(outside, inside, f"probe/{uuid.uuid4().hex}") else "no"
        else:
            yield name, "-"
    for name, look_at in {**WITH_CLIENTS_OF_ITS_OWN, **WITH_CLIENTS_OF_ITS_OWN_5}.items():
        if version == "5" or name in WITH_CLIENTS_OF_ITS_OWN:
            yield name, "yes" if look_at(broker, version, f"probe/{uuid.uuid4().hex}") else "no"
        else:
            yield name, "-"


def expected(broker: Broker) -> dict[str, str]:
    head, *rows = [re.split(r"\s{2,}", line) for line in CAPABILITIES.strip().splitlines()]
    release = f"{broker.name} {'.'.join(broker.version.split('.')[:2])}"
    assert release in head, f"{release} was never looked at: CAPABILITIES wants a column with what is printed"
    return {row[0]: row[head.index(release)] for row in rows}


def test_what_the_broker_can_do(broker: Broker, version: str) -> None:
    found = dict(capabilities(broker, version))
    print(f"{broker.name} {broker.version}")
    for name, value in found.items():
        print(f"{name:<36} {value}")
    with Client(broker, version) as client:
        print("announces", client.accepted)
    assert found == expected(broker)


# --- the daemon on each of them


@pytest.fixture
def device() -> str:
    """A name that no other test has left anything under."""
    return f"hall-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def outside(broker: Broker, version: str, device: str) -> Iterator[Client]:
    """Hears everything that the device says."""
    with Client(broker, version) as client:
        client.subscribe(f"pose/v1/{device}/#")
        yield client


Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(broker: Broker, device: str, model: Path, tmp_path: Path) -> Iterator[Start]:
    """`edge-pose run`, with the keys of run_settings; what it logged is shown when the test fails."""
    running: list[subprocess.Popen[bytes]] = []
    settings: dict[str, object] = {"device": device, "state_dir": tmp_path / "state", "mqtt__url": broker.url}
    if broker.username:
        (password := tmp_path / "password").write_text(broker.password)
        settings |= {"mqtt__username": broker.username, "mqtt__password_file": password}

    def run(**keys: object) -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            command = [*COMMAND, "run", *run_settings(**{**settings, **keys})]
            running.append(subprocess.Popen(command, stdout=log, stderr=log))
        return running[-1]

    yield run
    for process in running:
        process.kill()
        process.wait()
    print((tmp_path / "log").read_text())


def decoded(message: paho.MQTTMessage, kind: Any) -> Any:
    return msgspec.json.decode(message.payload, type=kind)


def test_subscribers_learn_all_from_the_first_landmarks_to_the_end(
    broker: Broker, version: str, device: str, outside: Client, start: Start
) -> None:
    home = f"pose/v1/{device}"
    state, info, status = f"{home}/state", f"{home}/info", f"{home}/camera/front/status"
    process = start(camera__front__loop=True)
    eventually(lambda: len(outside.on(f"{home}/camera/front/landmarks")) > 10, 30)
    eventually(lambda: outside.on(f"{home}/health") and outside.on(f"{home}/camera/front/summary"))

    landmarks = v1.decode_landmarks(outside.on(f"{home}/camera/front/landmarks")[-1].payload)
    summary = decoded(outside.on(f"{home}/camera/front/summary")[-1], v1.Summary)
    health = decoded(outside.on(f"{home}/health")[0], v1.Health)
    told = decoded(outside.on(info)[0], v1.Info)
    assert len(landmarks.people[0].image) == len(told.skeleton.keypoints) == 33
    assert summary.count == 1
    assert health.session == told.session
    assert told.device == device
    assert set(health.cameras) == set(told.cameras) == {"front"}
    if version == "5":
        for topic, content_type in {
            info: v1.JSON,
            state: v1.TEXT,
            status: v1.TEXT,
            f"{home}/health": v1.JSON,
            f"{home}/camera/front/landmarks": v1.JSON,
            f"{home}/camera/front/summary": v1.JSON,
        }.items():
            properties = outside.on(topic)[0].properties.json()
            assert properties["ContentType"] == content_type, topic
            assert ("v", "1") in properties["UserProperty"], topic
        for name in ("health", "camera/front/landmarks", "camera/front/summary"):
            assert outside.on(f"{home}/{name}")[0].properties.MessageExpiryInterval > 0

    there = [b"online", outside.payloads(info)[-1], b"online"]
    eventually(lambda: retained_now(broker, version, state, info, status) == there)

    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    eventually(lambda: outside.payloads(state) == [b"online", b"stopped"])
    eventually(lambda: retained_now(broker, version, state) == [b"stopped"])


def test_a_device_that_dies_is_offline_and_comes_back_without_the_camera_that_is_gone(
    broker: Broker, version: str, device: str, outside: Client, start: Start
) -> None:
    home = f"pose/v1/{device}"
    states, front, gate = f"{home}/state", f"{home}/camera/front/status", f"{home}/camera/gate/status"
    process = start(camera__front__loop=True, camera__gate__source="synthetic", camera__gate__fps=5)
    eventually(lambda: b"online" in outside.payloads(front) and b"online" in outside.payloads(gate), 30)
    process.kill()
    eventually(lambda: outside.payloads(states) == [b"online", b"offline"])
    left = b"online" if expected(broker)["5: will delay, then retained"] == "no" else b"offline"
    eventually(lambda: retained_now(broker, version, states, gate) == [left, b"online"])

    start(camera__front__loop=True)
    eventually(lambda: outside.payloads(states)[-1] == b"online", 30)
    eventually(lambda: outside.payloads(gate)[-1] == b"")
    eventually(lambda: outside.payloads(front).count(b"online") == 2, 30)
    eventually(lambda: retained_now(broker, version, states, front, gate) == [b"online", b"online", None])


def test_cameras_that_go_away_are_told_of(
    broker: Broker, version: str, device: str, outside: Client, start: Start
) -> None:
    home = f"pose/v1/{device}"
    start(camera__gate__source=f"rtsp://127.0.0.1:{free_port()}/stream")
    eventually(lambda: b"reconnecting" in outside.payloads(f"{home}/camera/gate/status"), 30)
    events = f"{home}/camera/front/event"
    eventually(lambda: any(b'"camera_ended"' in payload for payload in outside.payloads(events)), 30)
    first, *_, message = outside.on(events)
    ended = decoded(message, v1.Event)
    assert isinstance(ended, v1.CameraEnded)
    assert isinstance(decoded(first, v1.Event), v1.PersonEntered), "somebody is in the clip"
    assert ended.camera == "front"
    assert ended.id.startswith(decoded(outside.on(f"{home}/info")[0], v1.Info).session)
    assert (message.qos, message.retain) == (1, False)
    eventually(lambda: retained_now(broker, version, events) == [None])


def answer(outside: Client, device: str, verb: str, payload: bytes) -> v1.Reply:
    """The next reply of any verb; what goes with the command by MQTT 5 must come back with it."""
    seen, token = len(replies(outside, device)), uuid.uuid4().bytes
    response = f"pose/v1/{device}/reply/{uuid.uuid4().hex[:8]}"
    told = {"CorrelationData": token, "ResponseTopic": response} if outside.version == "5" else {}
    outside.publish(f"pose/v1/{device}/cmd/{verb}", payload, **told)
    eventually(lambda: len(replies(outside, device)) > seen)
    message = replies(outside, device)[seen]
    if outside.version == "5":
        assert (message.topic, message.properties.CorrelationData) == (response, token)
    return decoded(message, v1.Reply)


def ask(outside: Client, device: str, verb: str, **fields: Any) -> v1.Reply:
    """The reply to a command, which bears the same `id`."""
    name = uuid.uuid4().hex
    reply = answer(outside, device, verb, json.dumps({"id": name, **fields}).encode())
    assert (reply.id, reply.verb) == (name, verb)
    return reply


def replies(outside: Client, device: str) -> list[paho.MQTTMessage]:
    return [message for message in list(outside.messages) if message.topic.startswith(f"pose/v1/{device}/reply/")]


def refusal(reply: v1.Reply) -> v1.ErrorCode:
    assert not reply.ok
    assert isinstance(reply.error, v1.CommandError)
    return reply.error.code


def test_commands_are_obeyed_and_answered(device: str, outside: Client, start: Start) -> None:
    home = f"pose/v1/{device}"
    landmarks, status = f"{home}/camera/front/landmarks", f"{home}/camera/front/status"

    def newest_gap_us() -> int:
        before, last = (v1.decode_landmarks(message.payload) for message in outside.on(landmarks)[-2:])
        return last.t_us - before.t_us

    start(camera__front__loop=True)
    eventually(lambda: len(outside.on(landmarks)) > 2, 30)
    session = decoded(outside.on(f"{home}/info")[0], v1.Info).session

    outside.publish(f"{home}/cmd/ping", "")
    eventually(lambda: outside.on(f"{home}/reply/ping"))  # who names no response topic is answered here
    pong = ask(outside, device, "ping")
    assert pong.ok
    assert pong.result["session"] == session

    assert ask(outside, device, "set", values={"mqtt.landmarks_hz": 2}).ok
    eventually(lambda: newest_gap_us() > 300_000)
    settings = decoded(outside.on(f"{home}/info")[-1], v1.Info).settings
    assert settings == {"mqtt.landmarks_hz": 2}
    assert ask(outside, device, "set", values={"mqtt.landmarks_hz": None}).ok
    eventually(lambda: newest_gap_us() < 300_000)

    picture = ask(outside, device, "snapshot", camera="front")
    assert picture.ok
    eventually(lambda: outside.on(f"{home}/camera/front/snapshot"))
    (snapshot,) = outside.on(f"{home}/camera/front/snapshot")
    assert (snapshot.payload[:2], snapshot.payload[-2:]) == (b"\xff\xd8", b"\xff\xd9")
    assert len(snapshot.payload) == picture.result["bytes"]
    if outside.version == "5":
        assert ("seq", str(picture.result["seq"])) in snapshot.properties.UserProperty

    assert ask(outside, device, "pause", camera="front").ok
    eventually(lambda: outside.payloads(status)[-1] == b"paused")
    assert ask(outside, device, "resume").ok
    eventually(lambda: outside.payloads(status)[-1] == b"online")
    seen = len(outside.on(landmarks))
    eventually(lambda: len(outside.on(landmarks)) > seen)


def test_commands_that_can_not_be_are_refused(broker: Broker, device: str, outside: Client, start: Start) -> None:
    start(camera__front__loop=True)
    eventually(lambda: outside.on(f"pose/v1/{device}/camera/front/landmarks"), 30)
    assert refusal(answer(outside, device, "dance", b"{}")) == v1.ErrorCode.UNKNOWN_VERB
    assert refusal(answer(outside, device, "pause", b'{"camera":')) == v1.ErrorCode.MALFORMED
    assert refusal(answer(outside, device, "ping", b" " * 9_000)) == v1.ErrorCode.OVERSIZED
    before = len(outside.on(f"pose/v1/{device}/reply/ping"))
    outside.publish(f"pose/v1/{device}/cmd/ping", b" " * 300_000)
    if expected(broker)["5: maximum packet size"] != "yes":
        # The broker passes on what is larger than anybody should have to take: the device reads the beginning.
        eventually(lambda: len(outside.on(f"pose/v1/{device}/reply/ping")) > before)
        assert refusal(decoded(outside.on(f"pose/v1/{device}/reply/ping")[-1], v1.Reply)) == v1.ErrorCode.OVERSIZED
    assert refusal(ask(outside, device, "pause", camera="cellar")) == v1.ErrorCode.INVALID
    assert refusal(ask(outside, device, "set", values={"mqtt.landmarks_hz": "often"})) == v1.ErrorCode.INVALID
    assert ask(outside, device, "ping").ok
    assert outside.payloads(f"pose/v1/{device}/state") == [b"online"]  # nothing of it cost the connection


def test_a_retained_command_is_not_obeyed(
    broker: Broker, version: str, device: str, outside: Client, start: Start
) -> None:
    """It is for whoever was there, not for whoever comes later. Some brokers don't deliver it in the first place."""
    home = f"pose/v1/{device}"

    def refusals() -> list[v1.ErrorCode]:
        return [refusal(decoded(message, v1.Reply)) for message in outside.on(f"{home}/reply/pause")]

    outside.publish(f"{home}/cmd/pause", "{}", retain=True)
    start(camera__front__loop=True)
    due = [v1.ErrorCode.RETAINED] if expected(broker)["retained, by a wildcard"] == "yes" else []
    eventually(lambda: outside.on(f"{home}/camera/front/landmarks") and refusals() == due, 30)
    if version == "5":  # where it shows also in one that is sent now
        outside.publish(f"{home}/cmd/pause", "{}", retain=True)
        due += [v1.ErrorCode.RETAINED]
        eventually(lambda: refusals() == due)
    assert ask(outside, device, "ping").ok  # whatever came before it has been looked at
    assert refusals() == due
    assert b"paused" not in outside.payloads(f"{home}/camera/front/status")
    outside.publish(f"{home}/cmd/pause", "", retain=True)
