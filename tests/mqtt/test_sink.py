"""The sink against real brokers, seen by an outside client. What is the connection's own: test_session.py."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.control import Answer, Command, Inbox, Ping, Snapshot, Still
from edge.event_log import EventLog
from edge.mqtt import messages
from edge.mqtt import sink as sink_module
from edge.mqtt.commands import Answers, CommandDesk
from edge.mqtt.discovery import device_config
from edge.mqtt.message import Message, Received
from edge.mqtt.outbox import Outbox
from edge.mqtt.retained import RetainedTopics
from edge.mqtt.session import Session
from edge.mqtt.sink import Knowledge, MqttSink, Standing, Streams
from edge.mqtt.tls import Credentials
from edge.mqtt.topics import Topics
from edge.mqtt.wire import v1
from edge.reports import BrokerReach, CameraEnded, ClockReport, DeviceInfo, HealthReport, LinkState, MachineReport
from edge.stats import CameraStatus, DropCause, FrameRates, Stats
from edge.vision.observation import Observation
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import eventually, frame, observe, pose
from tests.servers import free_port, mosquitto

pytestmark = pytest.mark.integration

STATE = "pose/v1/bench/state"
INFO = "pose/v1/bench/info"
HEALTH = "pose/v1/bench/health"
STATUS = "pose/v1/bench/camera/front/status"
LANDMARKS = "pose/v1/bench/camera/front/landmarks"
SUMMARY = "pose/v1/bench/camera/front/summary"
EVENT = "pose/v1/bench/camera/front/event"
SNAPSHOT = "pose/v1/bench/camera/front/snapshot"
PING = "pose/v1/bench/cmd/ping"
DISCOVERY = "homeassistant/device/bench/config"

EVERY_FRAME = Streams(landmarks_hz=None, summary_hz=None, landmarks_format="json")


def device(name: str = "bench", *cameras: str, streams: Streams = EVERY_FRAME) -> DeviceInfo:
    return DeviceInfo(
        device=name,
        session="s",
        started_ns=1_700_000_000_000_000_000,
        versions={"edge-pose": "0"},
        board="test",
        model="full",
        model_sha256="0",
        max_people=1,
        segmentation=True,
        privacy="full",
        skeleton=MEDIAPIPE_POSE,
        cameras=dict.fromkeys(cameras or ("front",), "test"),
        landmarks_hz=streams.landmarks_hz,
        summary_hz=streams.summary_hz,
        settings={"mqtt.landmarks_hz": "unlimited"},
        keeps=True,
    )


class Bench:
    """A device's sink with all that is around it: whoever uses it is its lane and its main thread."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "bench",
        cameras: tuple[str, ...] = ("front",),
        stats: Stats | None = None,
        standing: Standing | None = None,
        state_dir: Path | None = None,
        home_assistant: bool = False,
        verbs: tuple[str, ...] = tuple(v1.REQUESTS),
        version: Literal["auto", "3.1.1"] = "auto",
        landmarks_hz: float | None = None,
        summary_hz: float | None = None,
        landmarks_format: Literal["json", "cbor"] = "json",
    ) -> None:
        self.name, self.cameras = name, cameras
        self.stats = stats or Stats(cameras)
        self.inbox = Inbox()
        self.events = EventLog("s")
        streams = Streams(landmarks_hz, summary_hz, landmarks_format)
        if standing is None:
            knowledge = Knowledge(device(name, *cameras, streams=streams), streams)
            outbox = Outbox(None, self.events.happened)
            standing = Standing(knowledge, outbox, Answers(), RetainedTopics(state_dir))
            self.events.listen(outbox.put)
            outbox.start()
        else:
            standing.knowledge.now = (device(name, *cameras, streams=streams), streams)
        self.standing = standing
        topics = Topics("pose/v1", name)

        def session(will: Message, on_online: Callable[[], None], on_message: Callable[[Received], None]) -> Session:
            return Session(
                (url,),
                client_id=f"edge-pose.{name}",
                version=version,
                credentials=Credentials(),
                will=will,
                on_online=on_online,
                on_message=on_message,
            )

        self.sink = MqttSink(
            session,
            topics=topics,
            standing=standing,
            health=self._health(),
            stats=self.stats,
            desk=CommandDesk(topics, verbs=verbs, ask=self.inbox.ask, answers=standing.answers),
            verbs=verbs,
            home_assistant=home_assistant,
        )

    def _health(self) -> Callable[[], HealthReport]:
        rates = FrameRates(self.stats)

        def report() -> HealthReport:
            return HealthReport(
                session="s",
                at_ns=time.time_ns(),
                uptime_s=5.0,
                cameras={name: camera.counts() for name, camera in self.stats.cameras.items()},
                fps=rates.since_last(),
                drops=self.stats.drops(),
                sent=self.stats.sends(),
                rerun=LinkState.OFF,
                machine=MachineReport(1.0, 200.0, None, None, None, None, ClockReport(None, None, 0)),
            )

        return report

    def become(self, *cameras: str, **streams: Any) -> None:
        """What the main thread does when the configuration changes."""
        self.cameras = cameras or self.cameras
        now = Streams(**{"landmarks_hz": None, "summary_hz": None, "landmarks_format": "json", **streams})
        self.stats.count(self.cameras)
        self.standing.knowledge.now = (device(self.name, *self.cameras, streams=now), now)

    def write(self, *observations: Observation) -> None:
        self.sink.write(observations)

    def until(self, condition: Callable[[], object], timeout_s: float = 10.0) -> None:
        """Go on, as a lane without observations does, until `condition` holds."""

        def turned() -> object:
            self.write()
            return condition()

        eventually(turned, timeout_s)

    def connect(self, timeout_s: float = 10.0, *, hears: bool = True) -> None:
        """hears: until the broker has what was subscribed to, too: its own state comes back after that."""
        self.until(lambda: self.sink.reach.state == "online" if hears else self.sink.online, timeout_s)

    def order(self) -> Command:
        """The next command that the main thread would carry out."""
        found: list[Command] = []

        def arrived() -> bool:
            request = self.inbox.next(0)
            if isinstance(request, Command):
                found.append(request)
            return bool(found)

        self.until(arrived)
        return found[0]

    def happens(self, reason: str = "gone", camera: str = "front") -> str:
        """Something; the event's id."""
        return self.events.happened(camera, CameraEnded(reason))


@contextlib.contextmanager
def bench(url: str, *, hears: bool = True, **options: Any) -> Iterator[Bench]:
    """A bench that is connected, and is closed at the end. hears: as of `connect`."""
    made = Bench(url, **options)
    made.connect(hears=hears)
    try:
        yield made
    finally:
        made.sink.close(2.0)


def observation(seq: int, people: int = 1, camera: str = "front") -> Observation:
    return observe(frame(seq=seq, camera=camera), [pose() for _ in range(people)])


class Subscriber:
    """An outside client that keeps what it receives."""

    def __init__(self, port: int, protocol: int = paho.MQTTv5) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=protocol)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda client, userdata, message: self.messages.append(message)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(5)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in list(self.messages) if message.topic == topic]

    def newest(self, topic: str) -> Any:
        """The last message there, as JSON."""
        return json.loads(self.payloads(topic)[-1])

    def send(
        self, topic: str, payload: bytes | str = b"{}", *, retain: bool = False, **properties: bytes | str
    ) -> paho.MQTTMessageInfo:
        """properties: of MQTT 5, by paho's names, such as CorrelationData."""
        mqtt_5: Any = Properties(PacketTypes.PUBLISH) if properties else None  # type: ignore[no-untyped-call]
        for name, value in properties.items():
            setattr(mqtt_5, name, value)
        return self._client.publish(topic, payload, qos=1, retain=retain, properties=mqtt_5)


@contextlib.contextmanager
def subscriber(port: int, protocol: int = paho.MQTTv5) -> Iterator[Subscriber]:
    client = Subscriber(port, protocol)
    try:
        yield client
    finally:
        client.close()


def test_a_run_as_an_outside_subscriber_sees_it() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url) as hall:
            for seq in range(20):
                hall.write(observation(seq, people=seq % 2))
        eventually(lambda: outside.payloads(STATE) == [b"online", b"stopped"], 5)
        landmarks = [v1.decode_landmarks(payload) for payload in outside.payloads(LANDMARKS)]
        assert [message.seq for message in landmarks] == list(range(20))
        assert [len(message.people) for message in landmarks] == [0, 1] * 10
        assert [message.t_us for message in landmarks] == [frame(seq=seq).captured_ns // 1000 for seq in range(20)]
        assert len(outside.payloads(SUMMARY)) == 20
        info = msgspec.json.decode(outside.payloads(INFO)[0], type=v1.Info)
        assert info.skeleton.keypoints == list(MEDIAPIPE_POSE.keypoints)
        assert (info.commands, info.settings) == ([*v1.REQUESTS], {"mqtt.landmarks_hz": "unlimited"})
        assert outside.payloads(STATUS) == [b"reconnecting"]
        assert outside.payloads(DISCOVERY) == []
    sent = {what: count for what, count in hall.stats.sends().items() if what != "mqtt health"}
    assert sent == {"mqtt landmarks": 20, "mqtt summary": 20}
    assert not hall.stats.drops()


def test_messages_say_what_they_are_and_when_they_are_stale() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, home_assistant=True) as hall:
        hall.write(observation(0))
        hall.happens()
        expected = {
            STATE: ("text/plain", None),
            STATUS: ("text/plain", None),
            INFO: ("application/json", None),
            DISCOVERY: ("application/json", None),
            HEALTH: ("application/json", 5),
            LANDMARKS: ("application/json", 5),
            SUMMARY: ("application/json", 5),
            EVENT: ("application/json", None),
        }
        hall.until(lambda: {message.topic for message in outside.messages} == expected.keys())
        for message in outside.messages:
            content_type, expiry_s = expected[message.topic]
            assert message.properties.ContentType == content_type
            assert message.properties.UserProperty == [("v", "1")]
            assert getattr(message.properties, "MessageExpiryInterval", None) in (expiry_s, expiry_s and expiry_s - 1)
            assert message.qos == (expiry_s is None)


def test_what_is_retained_is_there_for_who_comes_later_and_nothing_else() -> None:
    with mosquitto() as broker:
        with bench(broker.url, home_assistant=True) as hall:
            hall.happens()
            hall.write(observation(0))
            hall.until(lambda: len(hall.standing.outbox) == 0)
        with subscriber(broker.port) as late:
            eventually(lambda: len(late.messages) == 4, 5)
            retained = {message.topic: message.retain for message in late.messages}
            assert retained == dict.fromkeys((STATE, INFO, STATUS, DISCOVERY), True)
            assert late.payloads(STATE) == [b"stopped"]


def test_rates_are_kept() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url, landmarks_hz=10, summary_hz=2) as hall:
            for seq in range(60):  # two seconds of film
                hall.write(observation(seq))
        eventually(lambda: b"stopped" in outside.payloads(STATE), 5)
        assert len(outside.payloads(LANDMARKS)) == 20
        assert len(outside.payloads(SUMMARY)) in (4, 5)  # at 0, 0.5, 1, 1.5 and perhaps a little before 2 s


def test_landmarks_as_cbor_say_the_same_and_say_what_they_are() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url, landmarks_format="cbor") as hall:
            hall.write(observation(7))
            hall.until(lambda: outside.payloads(LANDMARKS))
        (message,) = [message for message in outside.messages if message.topic == LANDMARKS]
        found = v1.decode_landmarks(message.payload)
        assert not message.payload.startswith(b"{")
        assert message.properties.ContentType == "application/cbor"
        assert outside.newest(INFO)["landmarks"] == {"content_type": "application/cbor"}
    expected = observation(7)
    (person,) = found.people
    assert (found.seq, found.t_us) == (7, expected.captured_ns // 1000)
    image = expected.people[0].pose.image_xyz.tolist()
    assert [point[:3] for point in person.image] == [tuple(row) for row in image], "to the last bit"


def test_other_rates_and_another_encoding_come_into_force_on_the_same_connection() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, landmarks_hz=0.1) as hall:
        hall.write(*(observation(seq) for seq in range(30)))
        hall.until(lambda: len(outside.payloads(SUMMARY)) == 30)
        assert len(outside.payloads(LANDMARKS)) == 1

        hall.become(landmarks_hz=None, summary_hz=0.1, landmarks_format="cbor")
        hall.write(*(observation(seq) for seq in range(30, 60)))
        hall.until(lambda: len(outside.payloads(LANDMARKS)) == 31 and len(outside.payloads(INFO)) == 2)
        assert len(outside.payloads(SUMMARY)) == 31
        assert [v1.decode_landmarks(payload).seq for payload in outside.payloads(LANDMARKS)[1:]] == [*range(30, 60)]
        assert outside.newest(INFO)["landmarks"] == {"content_type": "application/cbor"}
        assert outside.newest(INFO)["summary"] == {"content_type": "application/json", "hz": 0.1}
        assert outside.payloads(STATE) == [b"online"]


def test_without_a_broker_everything_is_dropped_and_counted() -> None:
    hall = Bench(f"mqtt://127.0.0.1:{free_port()}")
    for seq in range(5):
        hall.write(observation(seq))
    hall.sink.close(0.1)
    assert hall.stats.drops() == {
        ("mqtt landmarks", DropCause.DISCONNECTED): 5,
        ("mqtt summary", DropCause.DISCONNECTED): 5,
    }


def test_frames_that_are_there_before_the_first_connection_wait_for_it() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        hall = Bench(broker.url)
        hall.write(*(observation(seq) for seq in range(3)))
        hall.sink.close(4.0)  # as after a file that holds a picture
        eventually(lambda: outside.payloads("pose/v1/bench/state") == [b"online", b"stopped"])
        seqs = [json.loads(each)["seq"] for each in outside.payloads("pose/v1/bench/camera/front/landmarks")]
    assert seqs == [0, 1, 2]
    assert hall.stats.drops() == {}


def test_too_many_do_not_wait() -> None:
    hall = Bench(f"mqtt://127.0.0.1:{free_port()}")
    hall.write(*(observation(seq) for seq in range(100)))
    assert hall.stats.drops()["mqtt landmarks", DropCause.DISCONNECTED] == 100
    hall.sink.close(0.1)


def test_a_broker_that_restarts_is_found_again_and_told_everything() -> None:
    with mosquitto() as broker:
        hall = Bench(broker.url, home_assistant=True)
        hall.connect()
        hall.stats.cameras["front"].status = CameraStatus.ONLINE

    hall.until(lambda: not hall.sink.online)
    hall.happens()
    hall.stats.cameras["front"].status = CameraStatus.PAUSED
    with mosquitto(port=broker.port), subscriber(broker.port) as outside:
        hall.connect()
        hall.write(observation(7))
        hall.until(lambda: len(outside.payloads(LANDMARKS)) == 1 and outside.payloads(EVENT), 5)
        assert outside.payloads(STATE) == [b"online"]
        assert outside.payloads(STATUS) == [b"paused"]
        assert [len(outside.payloads(topic)) for topic in (INFO, DISCOVERY, HEALTH)] == [1, 1, 1]
        hall.sink.close(2.0)


def test_a_frozen_broker_holds_up_nothing_and_memory_stays_bounded() -> None:
    with mosquitto() as broker:
        hall = Bench(broker.url)
        hall.connect()
        broker.process.send_signal(signal.SIGSTOP)
        slow = ("mqtt landmarks", DropCause.SLOW_RECEIVER)
        for seq in range(20_000):
            hall.write(observation(seq))
            if hall.stats.drops().get(slow, 0) > 100:
                break
        # At most one message waits beyond what the kernel's buffers hold.
        assert hall.stats.drops()[slow] > 100
        assert len(hall.sink._session._client._out_packet) <= 2
        began_s = time.monotonic()
        hall.sink.close(1.0)
        assert time.monotonic() - began_s < 5  # the daemon's promise for all its sinks together
        broker.process.send_signal(signal.SIGCONT)


def test_that_it_is_online_is_what_the_broker_says_of_it() -> None:
    port = free_port()
    nowhere = Bench(f"mqtt://127.0.0.1:{port}")
    assert (nowhere.sink.reach.state, nowhere.sink.reach.connection) == ("not connected yet", 0)
    nowhere.until(lambda: nowhere.sink.reach.state == f"127.0.0.1:{port}: Connection refused")
    with mosquitto(port=port) as broker, subscriber(port) as outside:
        nowhere.until(lambda: nowhere.sink.reach == BrokerReach("online", 1))
        outside.send(STATE, b"stopped\nREADY=1", retain=True)
        nowhere.until(lambda: nowhere.sink.reach.state.endswith("is 'stopped\\nREADY=1', by another client"))
        broker.process.kill()
        nowhere.until(lambda: not nowhere.sink.online)
        assert nowhere.sink.reach.state.startswith(f"127.0.0.1:{port}: connection lost")
    with mosquitto(port=port):
        nowhere.until(lambda: nowhere.sink.reach == BrokerReach("online", 2))
        nowhere.sink.close(2.0)


def test_a_broker_that_takes_all_and_gives_nothing_back_does_not_have_it(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("topic write pose/v1/bench/#\n")
    with mosquitto(settings=f"acl_file {tmp_path}/acl") as broker, bench(broker.url, hears=False) as hall:
        hall.until(lambda: hall.stats.sends().get("mqtt health"))
        assert "connected, but what is published at pose/v1/bench/state does not come back" in hall.sink.reach.state


def test_a_cameras_status_is_told_when_it_changes() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        for status in (CameraStatus.ONLINE, CameraStatus.STALLED, CameraStatus.ONLINE, CameraStatus.PAUSED):
            hall.stats.cameras["front"].status = status
            hall.until(lambda status=status: outside.payloads(STATUS)[-1:] == [status.encode()])  # type: ignore[misc]
        told = outside.payloads(STATUS)
        assert told == [b"reconnecting", b"online", b"stalled", b"online", b"paused"]


def test_health_comes_at_once_and_then_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink_module, "HEALTH_EVERY_S", 0.3)
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        hall.until(lambda: len(outside.payloads(HEALTH)) == 1)
        hall.stats.cameras["front"].frame_estimated(people=1, inference_ms=10, latency_ms=12)
        hall.stats.dropped("mqtt landmarks", DropCause.DISCONNECTED, 3)
        began_s = time.monotonic()
        hall.until(lambda: len(outside.payloads(HEALTH)) == 3)
        assert 0.2 < time.monotonic() - began_s < 5
        health = msgspec.json.decode(outside.payloads(HEALTH)[-1], type=v1.Health)
    assert health.cameras["front"].estimated == 1
    assert health.drops == {"mqtt landmarks": {"disconnected": 3}}
    assert health.sent["mqtt health"] >= 1
    assert (health.outbox.waiting, health.outbox.lost) == (0, 0)


def test_events_wait_for_the_broker_and_come_in_their_order_each_once() -> None:
    with mosquitto() as broker:
        hall = Bench(broker.url)
        for _ in range(100):  # more than may be on their way at once
            hall.happens()
        with subscriber(broker.port) as outside:
            hall.connect()
            hall.until(lambda: len(hall.standing.outbox) == 0)
            hall.sink.close(2.0)
            eventually(lambda: len(outside.payloads(EVENT)) == 100)
            events = [json.loads(payload) for payload in outside.payloads(EVENT)]
            assert [event["id"] for event in events] == [f"s-{number}" for number in range(1, 101)]
            told = {"type": "camera_ended", "v": 1, "id": "s-1", "camera": "front", "reason": "gone"}
            assert {**events[0], "t_us": 0} == {**told, "t_us": 0}
    assert hall.stats.sends()["mqtt event"] == 100


def test_an_event_that_the_broker_took_down_with_it_comes_again() -> None:
    with mosquitto() as broker:
        hall = Bench(broker.url)
        hall.connect()
        broker.process.send_signal(signal.SIGSTOP)
        for _ in range(5):
            hall.happens()
        hall.write()  # they are on their way now
    hall.until(lambda: not hall.sink.online)
    assert len(hall.standing.outbox) == 5
    with mosquitto(port=broker.port), subscriber(broker.port) as outside:
        hall.until(lambda: len(hall.standing.outbox) == 0)
        hall.sink.close(2.0)
        eventually(lambda: len(outside.payloads(EVENT)) == 5)


def test_the_sink_that_takes_over_goes_on_with_events_and_answers() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url) as first:
            outside.send(PING, '{"id": "7"}')
            command = first.order()
        first.happens()
        command.answer(Answer(result={"session": "s"}))
        with bench(broker.url, standing=first.standing) as second:
            second.until(lambda: outside.payloads("pose/v1/bench/reply/ping") and outside.payloads(EVENT))
        assert outside.newest("pose/v1/bench/reply/ping")["id"] == "7"
        eventually(lambda: outside.payloads(STATE) == [b"online", b"stopped"] * 2)


def test_a_command_is_handed_on_and_its_answer_published_where_it_is_wanted() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        wanted = "pose/v1/bench/reply/anna/1"
        outside.send(PING, ResponseTopic=wanted, CorrelationData=b"\0\xff")
        command = hall.order()
        assert command.order == Ping()
        assert outside.payloads(wanted) == []
        command.answer(Answer(result={"session": "s", "uptime_s": 5.0}))
        hall.until(lambda: outside.payloads(wanted))
        (message,) = [message for message in outside.messages if message.topic == wanted]
        assert message.properties.CorrelationData == b"\0\xff"
        assert message.properties.ContentType == "application/json"
        assert message.properties.UserProperty == [("v", "1")]
        assert 0 < message.properties.MessageExpiryInterval <= 60
        assert (message.qos, message.retain) == (1, False)
        reply = msgspec.json.decode(message.payload, type=v1.Reply)
        assert (reply.verb, reply.ok, reply.result) == ("ping", True, {"session": "s", "uptime_s": 5.0})
        assert hall.stats.sends()["mqtt reply"] == 1


def test_with_3_1_1_all_that_there_is_is_the_same_and_the_id_tells_replies_apart() -> None:
    with (
        mosquitto() as broker,
        subscriber(broker.port, paho.MQTTv311) as outside,
        bench(broker.url, version="3.1.1") as hall,
    ):
        outside.send(PING, '{"id": "7"}')
        hall.order().answer(Answer(result={"session": "s"}))
        hall.write(observation(0))
        hall.happens()
        topics = (STATE, INFO, STATUS, HEALTH, LANDMARKS, SUMMARY, EVENT, "pose/v1/bench/reply/ping")
        hall.until(lambda: all(outside.payloads(topic) for topic in topics))
        assert outside.newest("pose/v1/bench/reply/ping")["id"] == "7"


def test_what_is_refused_is_answered_by_the_sink_itself() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, verbs=("ping",)) as hall:
        outside.send("pose/v1/bench/cmd/restart")
        outside.send(PING, b"{" * 10)
        outside.send(PING, b"{" * 9000)
        replies = ("pose/v1/bench/reply/restart", "pose/v1/bench/reply/ping")
        hall.until(lambda: [len(outside.payloads(topic)) for topic in replies] == [1, 2])
        found = [json.loads(payload)["error"]["code"] for topic in replies for payload in outside.payloads(topic)]
        assert found == ["unknown_verb", "malformed", "oversized"]
        assert outside.newest(INFO)["commands"] == ["ping"]
        assert hall.inbox.next(0) is None


def test_a_retained_command_is_refused_when_the_device_comes() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        outside.send(PING, "{}", retain=True).wait_for_publish(5)
        with bench(broker.url) as hall:
            hall.until(lambda: outside.payloads("pose/v1/bench/reply/ping"))
            assert outside.newest("pose/v1/bench/reply/ping")["error"]["code"] == "retained"
            assert hall.inbox.next(0) is None


def test_without_verbs_nobody_is_listened_to() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, verbs=()) as hall:
        outside.send(PING).wait_for_publish(5)
        for seq in range(20):
            hall.write(observation(seq))
        hall.until(lambda: len(outside.payloads(LANDMARKS)) == 20)
        assert outside.payloads("pose/v1/bench/reply/ping") == []
        assert hall.inbox.next(0) is None


def test_a_flood_of_commands_is_answered_as_far_as_documented_and_all_else_goes_on() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        for number in range(300):
            outside.send("pose/v1/bench/cmd/fly" if number % 2 else PING, f'{{"id": "{number}"}}')
        seqs = iter(range(10_000))

        def settled() -> bool:
            hall.write(observation(next(seqs)))
            while isinstance(request := hall.inbox.next(0), Command):
                request.answer(Answer())
            answered = len(replies())
            ignored = hall.stats.drops().get(("mqtt commands", DropCause.TOO_MANY), 0)
            return answered + ignored == 300

        def replies() -> list[bytes]:
            return [
                message.payload for message in list(outside.messages) if message.topic.startswith("pose/v1/bench/reply")
            ]

        eventually(settled, 30)
        assert ("mqtt reply", DropCause.SLOW_RECEIVER) not in hall.stats.drops()
        assert hall.sink.online
        hall.until(lambda: len(outside.payloads(LANDMARKS)) == hall.stats.sends()["mqtt landmarks"])


def test_a_snapshot_is_published_before_the_reply_that_tells_of_it() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        outside.send("pose/v1/bench/cmd/snapshot", '{"camera": "front"}')
        command = hall.order()
        assert command.order == Snapshot("front")
        jpeg = b"\xff\xd8" + bytes(100_000)
        command.answer(Answer(still=Still("front", 7, 1_700_000_000_123_456_000, 640, 480, jpeg)))
        reply = "pose/v1/bench/reply/snapshot"
        hall.until(lambda: outside.payloads(reply))
        seen = [message.topic for message in outside.messages if message.topic in (SNAPSHOT, reply)]
        assert seen == [SNAPSHOT, reply]
        (picture,) = [message for message in outside.messages if message.topic == SNAPSHOT]
        assert picture.payload == jpeg
        assert picture.properties.ContentType == "image/jpeg"
        assert picture.properties.UserProperty == [("v", "1"), ("seq", "7"), ("t_us", "1700000000123456")]
        assert (picture.qos, picture.retain) == (0, False)
        assert outside.newest(reply)["result"] == {
            "camera": "front",
            "seq": 7,
            "t_us": 1_700_000_000_123_456,
            "width_px": 640,
            "height_px": 480,
            "bytes": 100_002,
        }


def test_where_no_picture_may_leave_none_is_offered_and_one_that_was_taken_before_is_not_published() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, home_assistant=True) as hall:
        outside.send("pose/v1/bench/cmd/snapshot", '{"camera": "front"}')
        command = hall.order()
        info, streams = hall.standing.knowledge.now
        hall.standing.knowledge.now = (replace(info, privacy="mask"), streams)
        command.answer(Answer(still=Still("front", 7, 1_700_000_000_123_456_000, 640, 480, b"\xff\xd8")))
        reply = "pose/v1/bench/reply/snapshot"
        hall.until(lambda: outside.payloads(reply))
        assert "privacy.mode does not let a picture leave" in outside.newest(reply)["error"]["text"]
        hall.until(lambda: outside.newest(INFO)["privacy"] == "mask")
        assert set(v1.REQUESTS) - {*outside.newest(INFO)["commands"]} == {"snapshot"}

        def gone() -> set[str]:
            return {name for name, part in outside.newest(DISCOVERY)["cmps"].items() if part.keys() == {"p"}}

        hall.until(lambda: gone() == {"front_snapshot", "front_capture"})
        hall.standing.knowledge.now = (info, streams)
        hall.until(lambda: not gone())
        assert outside.newest(INFO)["commands"] == [*v1.REQUESTS]
        assert not outside.payloads(SNAPSHOT)


def test_home_assistant_is_told_again_when_it_starts() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url, home_assistant=True) as hall:
        hall.until(lambda: len(outside.payloads(DISCOVERY)) == 1)
        for word in (b"offline", b"online"):
            outside.send("homeassistant/status", word)
        hall.until(lambda: len(outside.payloads(DISCOVERY)) == 2)
        assert outside.payloads(DISCOVERY)[0] == outside.payloads(DISCOVERY)[1]
        assert len(outside.payloads(INFO)) == 1
        assert hall.inbox.next(0) is None


def test_what_became_of_a_camera_that_is_gone() -> None:
    with mosquitto() as broker:
        with subscriber(broker.port) as outside:
            with bench(broker.url, cameras=("front", "back"), home_assistant=True) as hall:
                hall.until(lambda: outside.payloads("pose/v1/bench/camera/back/status"))
                hall.become("front")
                hall.until(lambda: len(outside.payloads("pose/v1/bench/camera/back/status")) == 2)
                hall.until(lambda: outside.newest(INFO)["cameras"].keys() == {"front"})
            assert outside.payloads("pose/v1/bench/camera/back/status") == [b"reconnecting", b""]
            gone = [part for name, part in outside.newest(DISCOVERY)["cmps"].items() if name.startswith("back_")]
            assert gone
            assert all(part.keys() == {"p"} for part in gone), "so it tells Home Assistant to remove them"
        with subscriber(broker.port) as late:
            eventually(lambda: len(late.messages) == 4)
            assert {message.topic for message in late.messages} == {STATE, INFO, STATUS, DISCOVERY}


@pytest.mark.parametrize("restarted", [False, True], ids=["reload", "restart"])
def test_a_device_of_another_name_leaves_nothing_under_its_old_one(tmp_path: Path, *, restarted: bool) -> None:
    with mosquitto() as broker:
        with bench(broker.url, name="old", home_assistant=True, state_dir=tmp_path) as old:
            old.until((tmp_path / "retained.json").exists)
        standing = None if restarted else old.standing
        with (
            bench(broker.url, home_assistant=True, state_dir=tmp_path, standing=standing) as new,
            subscriber(broker.port) as late,
        ):
            new.until(lambda: len(json.loads((tmp_path / "retained.json").read_text())) == 4)
            # Whoever comes now sees what is retained; whoever was there saw the old ones being taken back.
            new.until(lambda: {STATE, INFO, STATUS, DISCOVERY} <= {message.topic for message in late.messages})
        with subscriber(broker.port) as later:
            eventually(lambda: len(later.messages) == 4)
            assert {message.topic for message in later.messages} == {STATE, INFO, STATUS, DISCOVERY}


def test_who_is_not_introduced_any_more_is_gone_from_home_assistant(tmp_path: Path) -> None:
    with mosquitto() as broker:
        with bench(broker.url, home_assistant=True, state_dir=tmp_path):
            pass
        with subscriber(broker.port) as outside, bench(broker.url, state_dir=tmp_path) as hall:
            hall.until(lambda: outside.payloads(DISCOVERY)[-1:] == [b""])


def test_a_retained_command_is_not_obeyed_by_who_is_there_already_and_nor_is_its_removal() -> None:
    """A broker hides from subscribers that a new message is retained, unless they ask for it (retain as published)."""
    with mosquitto() as broker, subscriber(broker.port) as outside, bench(broker.url) as hall:
        outside.send("pose/v1/bench/cmd/restart", "{}", retain=True)
        outside.send("pose/v1/bench/cmd/restart", "", retain=True)  # as the reply to the first one asks for
        outside.send(PING)
        assert hall.order().order == Ping(), "neither of the others is carried out"
        hall.until(lambda: outside.payloads("pose/v1/bench/reply/restart"))
        assert outside.newest("pose/v1/bench/reply/restart")["error"]["code"] == "retained"


def test_a_camera_that_comes_back_has_its_status_again() -> None:
    with (
        mosquitto() as broker,
        subscriber(broker.port) as outside,
        bench(broker.url, cameras=("front", "back")) as hall,
    ):
        back = "pose/v1/bench/camera/back/status"
        hall.until(lambda: outside.payloads(back) == [b"reconnecting"])
        hall.become("front")
        hall.until(lambda: outside.payloads(back) == [b"reconnecting", b""])
        hall.become("front", "back")
        hall.until(lambda: outside.payloads(back) == [b"reconnecting", b"", b"reconnecting"])


def test_a_camera_that_comes_and_goes_while_the_broker_is_slow_leaves_nothing_behind(tmp_path: Path) -> None:
    back = "pose/v1/bench/camera/back/status"
    with (
        mosquitto() as broker,
        bench(broker.url, cameras=("front", "back"), state_dir=tmp_path) as hall,
        subscriber(broker.port) as outside,
    ):
        hall.until(lambda: outside.payloads(back))
        broker.process.send_signal(signal.SIGSTOP)
        hall.become("front")
        hall.write()
        hall.stats.count(("front", "back"))
        hall.stats.cameras["back"].status = CameraStatus.ONLINE
        hall.become("front", "back")
        hall.write()
        broker.process.send_signal(signal.SIGCONT)
        hall.until(lambda: outside.payloads(back)[-1] == b"online")
        hall.happens()
        hall.until(lambda: len(hall.standing.outbox) == 0)  # whatever went before is acknowledged too
        assert back in json.loads((tmp_path / "retained.json").read_text())
        hall.become("front")
        hall.until(lambda: outside.payloads(back)[-1] == b"")


def test_what_is_larger_than_the_broker_takes_is_counted() -> None:
    with mosquitto(settings="max_packet_size 4000") as broker, bench(broker.url) as hall:
        for seq in range(5):
            hall.write(observation(seq, people=4))
        hall.until(lambda: hall.stats.sends().get("mqtt health"))
        sent, drops = hall.stats.sends(), hall.stats.drops()
        lost = sum(count for (place, _), count in drops.items() if place == "mqtt landmarks")
        assert sent.get("mqtt landmarks", 0) + lost == 5


def test_of_a_picture_that_does_not_get_through_it_is_not_said_that_it_did() -> None:
    with (
        mosquitto(settings="max_packet_size 50000") as broker,
        subscriber(broker.port) as outside,
        bench(broker.url) as hall,
    ):
        outside.send("pose/v1/bench/cmd/snapshot")
        still = Still("front", 7, 1_700_000_000_123_456_000, 640, 480, bytes(100_000))
        hall.order().answer(Answer(still=still))
        hall.until(lambda: outside.payloads("pose/v1/bench/reply/snapshot"))
        assert outside.payloads(SNAPSHOT) == []
        assert outside.newest("pose/v1/bench/reply/snapshot")["error"]["code"] == "failed"


def test_the_sink_that_takes_over_knows_what_home_assistant_was_told() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url, cameras=("front", "back"), home_assistant=True) as first:
            first.until(lambda: outside.payloads(DISCOVERY))
        # As when a password and the cameras change in one reload.
        with bench(broker.url, cameras=("front",), home_assistant=True, standing=first.standing) as second:
            second.until(lambda: len(outside.payloads(DISCOVERY)) == 2)
        gone = [part for name, part in outside.newest(DISCOVERY)["cmps"].items() if name.startswith("back_")]
        assert gone
        assert all(part.keys() == {"p"} for part in gone)


def test_events_that_the_broker_refuses_hold_up_no_others(tmp_path: Path) -> None:
    access = tmp_path / "access"
    access.write_text("topic read #\ntopic write pose/v1/bench/cmd/#\ntopic write pose/v1/bench/camera/front/event\n")
    access.chmod(0o700)
    with (
        mosquitto(settings=f"acl_file {access}") as broker,
        subscriber(broker.port) as outside,
        bench(broker.url, cameras=("front", "back"), hears=False) as hall,
    ):
        for _ in range(40):
            hall.happens("refused", "back")
        hall.happens("heard", "front")
        hall.until(lambda: outside.payloads("pose/v1/bench/camera/front/event"))
        hall.until(lambda: len(hall.standing.outbox) == 40)  # those are tried again at the next connection


def test_who_has_a_name_now_tells_everything_anew_when_its_last_owner_takes_it_back(tmp_path: Path) -> None:
    with mosquitto() as broker:
        with bench(broker.url, state_dir=tmp_path) as first:
            first.until(lambda: first.stats.sends().get("mqtt health"))
        with bench(broker.url) as successor, subscriber(broker.port) as outside:
            successor.until(lambda: outside.payloads(STATE)[-1:] == [b"online"])
            renamed = bench(broker.url, name="spare", state_dir=tmp_path)
            with renamed as spare:
                spare.until(lambda: b"" in outside.payloads(STATE))
                successor.until(lambda: outside.payloads(STATE)[-1] == b"online" and outside.payloads(INFO)[-1])
                with subscriber(broker.port) as late:
                    successor.until(lambda: late.payloads(STATE) == [b"online"])
                    assert late.newest(INFO)["device"] == "bench"


def test_a_verb_that_went_while_it_was_down_leaves_home_assistant_too() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        with bench(broker.url, home_assistant=True, verbs=("ping",)) as hall:
            hall.until(lambda: outside.payloads(DISCOVERY))
        parts = outside.newest(DISCOVERY)["cmps"]
        assert {"restart", "front_pause"} <= {name for name, part in parts.items() if part.keys() == {"p"}}


def test_without_a_place_to_keep_it_home_assistants_pause_is_not_to_be_kept(tmp_path: Path) -> None:
    info = messages.info(device("bench", "front"), landmarks_type=v1.JSON, commands=[*v1.REQUESTS])
    for keeps in (False, True):
        payload = json.loads(device_config(Topics("pose/v1", "bench"), msgspec.structs.replace(info, keeps=keeps)))
        on = msgspec.json.decode(payload["cmps"]["front_pause"]["payload_on"], type=v1.Set)
        assert on.keep is keeps
