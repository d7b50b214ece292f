"""The sink and its session against real brokers, seen by an outside client."""

from __future__ import annotations

import contextlib
import gc
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.cli.local_broker import BrokerKind, local_broker
from edge.cli.local_server import free_port
from edge.errors import ConfigError
from edge.mqtt.session import Credentials
from edge.mqtt.sink import MqttSink
from edge.mqtt.topics import Topics
from edge.mqtt.wire.v1 import DeviceInfo
from edge.pacing import Deadline
from edge.stats import DropCause, Stats
from edge.vision.observation import Observation, observe
from edge.vision.skeleton import MEDIAPIPE_POSE
from tests.conftest import eventually, frame, pose
from tests.servers import certificates, mosquitto, tls_settings

pytestmark = pytest.mark.integration

STATE = "pose/v1/bench/state"
INFO = "pose/v1/bench/info"
LANDMARKS = "pose/v1/bench/camera/front/landmarks"
SUMMARY = "pose/v1/bench/camera/front/summary"


def sink_to(url: str, stats: Stats | None = None, **options: Any) -> MqttSink:
    info = DeviceInfo(
        device="bench",
        session="s",
        versions={"edge-pose": "0"},
        board="test",
        model="full",
        model_sha256="0",
        skeleton=MEDIAPIPE_POSE,
        cameras={"front": {"source": "test"}},
    )
    settings: dict[str, Any] = {
        "credentials": Credentials(),
        "version": "auto",
        "landmarks_hz": None,
        "summary_hz": None,
        "stats": stats or Stats([]),
    }
    return MqttSink(url, topics=Topics("pose/v1", "bench"), info=info, **{**settings, **options})


def observation(seq: int, people: int = 1) -> Observation:
    return observe(frame(seq=seq), [pose() for _ in range(people)])


class Subscriber:
    """An outside client that keeps what it receives."""

    def __init__(self, port: int) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
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


@contextlib.contextmanager
def subscriber(port: int) -> Iterator[Subscriber]:
    client = Subscriber(port)
    try:
        yield client
    finally:
        client.close()


def connect(sink: MqttSink, timeout_s: float = 10) -> None:
    def online() -> bool:
        sink.write([])
        return sink.online

    eventually(online, timeout_s)


def test_a_run_as_an_outside_subscriber_sees_it() -> None:
    stats = Stats([])
    with mosquitto() as broker, subscriber(broker.port) as outside:
        sink = sink_to(broker.url, stats)
        connect(sink)
        for seq in range(20):
            sink.write([observation(seq, people=seq % 2)])
        sink.close(2.0)
        eventually(lambda: outside.payloads(STATE) == [b"online", b"stopped"], 5)
        landmarks = [json.loads(payload) for payload in outside.payloads(LANDMARKS)]
        assert [message["seq"] for message in landmarks] == list(range(20))
        assert [len(message["people"]) for message in landmarks] == [0, 1] * 10
        assert [message["t_us"] for message in landmarks] == [frame(seq=seq).captured_ns // 1000 for seq in range(20)]
        assert len(outside.payloads(SUMMARY)) == 20
        assert json.loads(outside.payloads(INFO)[0])["skeleton"]["keypoints"] == list(MEDIAPIPE_POSE.keypoints)
    assert stats.sends() == {"mqtt landmarks": 20, "mqtt summary": 20}
    assert not stats.drops()


def test_messages_say_what_they_are_and_when_they_are_stale() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        sink = sink_to(broker.url)
        connect(sink)
        sink.write([observation(0)])
        eventually(lambda: bool(outside.payloads(LANDMARKS)), 5)
        properties = next(message for message in outside.messages if message.topic == LANDMARKS).properties
        assert properties.ContentType == "application/json"
        assert properties.UserProperty == [("v", "1")]
        assert 0 < properties.MessageExpiryInterval <= 5
        sink.close(2.0)


def test_state_and_info_are_retained_for_who_comes_later() -> None:
    with mosquitto() as broker:
        sink = sink_to(broker.url)
        connect(sink)
        sink.close(2.0)
        with subscriber(broker.port) as late:
            eventually(lambda: len(late.messages) == 2, 5)
            assert {(message.topic, message.retain) for message in late.messages} == {(STATE, True), (INFO, True)}
            assert late.payloads(STATE) == [b"stopped"]


def test_rates_are_kept() -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        sink = sink_to(broker.url, landmarks_hz=10, summary_hz=2)
        connect(sink)
        for seq in range(60):  # two seconds of film
            sink.write([observation(seq)])
        sink.close(2.0)
        eventually(lambda: b"stopped" in outside.payloads(STATE), 5)
        assert len(outside.payloads(LANDMARKS)) == 20
        assert len(outside.payloads(SUMMARY)) in (4, 5)  # at 0, 0.5, 1, 1.5 and perhaps a little before 2 s


def test_without_a_broker_everything_is_dropped_and_counted() -> None:
    stats = Stats([])
    sink = sink_to(f"mqtt://127.0.0.1:{free_port()}", stats)
    for seq in range(5):
        sink.write([observation(seq)])
    sink.close(0.1)
    assert stats.drops() == {
        ("mqtt landmarks", DropCause.DISCONNECTED): 5,
        ("mqtt summary", DropCause.DISCONNECTED): 5,
    }


def test_a_broker_that_restarts_is_found_again_and_told_everything() -> None:
    with mosquitto() as broker:
        sink = sink_to(broker.url)
        connect(sink)

    def offline() -> bool:
        sink.write([])
        return not sink.online

    eventually(offline, 10)
    with mosquitto(port=broker.port), subscriber(broker.port) as outside:
        connect(sink)
        sink.write([observation(7)])
        eventually(lambda: len(outside.payloads(LANDMARKS)) == 1, 5)
        assert outside.payloads(STATE) == [b"online"]
        assert len(outside.payloads(INFO)) == 1
        sink.close(2.0)


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_who_lets_go_before_it_is_accepted_is_gone_for_good(turns: int) -> None:
    with mosquitto() as broker, subscriber(broker.port) as outside:
        first = sink_to(broker.url)
        for _ in range(turns):
            first.write([])
        first.close(1.0)
        second = sink_to(broker.url)
        connect(second)
        end = Deadline(1.5)  # a client of the same name would throw it out by now
        while end.left_s():
            second.write([])
            time.sleep(0.02)
        assert second.online
        second.close(1.0)
        eventually(lambda: outside.payloads("pose/v1/bench/state")[-1:] == [b"stopped"])
        assert b"offline" not in outside.payloads("pose/v1/bench/state")


def test_a_frozen_broker_holds_up_nothing_and_memory_stays_bounded() -> None:
    stats = Stats([])
    with mosquitto() as broker:
        sink = sink_to(broker.url, stats)
        connect(sink)
        broker.process.send_signal(signal.SIGSTOP)
        slow = ("mqtt landmarks", DropCause.SLOW_RECEIVER)
        for seq in range(20_000):
            sink.write([observation(seq)])
            if stats.drops().get(slow, 0) > 100:
                break
        # At most one message waits beyond what the kernel's buffers hold.
        assert stats.drops()[slow] > 100
        assert len(sink._session._client._out_packet) <= 2
        began_s = time.monotonic()
        sink.close(1.0)
        assert time.monotonic() - began_s < 5  # the daemon's promise for all its sinks together
        broker.process.send_signal(signal.SIGCONT)


# amqtt leaves the connection it could not make sense of to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_broker_without_mqtt_5_is_spoken_to_in_3_1_1() -> None:
    with local_broker(BrokerKind.BUILTIN) as broker:
        sink = sink_to(broker.url)
        connect(sink, 30)
        assert sink._session.protocol == "3.1.1"
        sink.close(2.0)
    gc.collect()


def test_a_broker_that_was_not_ready_is_spoken_to_in_5_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as booting:
        port = booting.getsockname()[1]
        sink = sink_to(f"mqtt://127.0.0.1:{port}")
        booting.settimeout(0.01)

        def closed_once() -> bool:
            sink.write([])
            with contextlib.suppress(TimeoutError):
                booting.accept()[0].close()
            return sink._session.protocol == "3.1.1"  # the next one to be tried

        eventually(closed_once, 10)
    for _ in range(2):  # whatever the first connection speaks, the second one speaks 5
        with mosquitto(port=port):
            connect(sink)

        def offline() -> bool:
            sink.write([])
            return not sink.online

        eventually(offline, 10)
    assert sink._session.protocol == "5"
    sink.close(0.1)


def test_a_wrong_password_is_one_line_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "bench", "right"], check=True)
    passwords.chmod(0o644)
    with mosquitto(settings=f"allow_anonymous false\npassword_file {passwords}") as broker:
        sink = sink_to(broker.url, credentials=Credentials("bench", "wrong"))

        def refused() -> bool:
            sink.write([])
            return "refuses" in caplog.text

        eventually(refused, 10)
        warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert len(warnings) == 1
        assert "mqtt.password_file" in warnings[0]
        assert "wrong" not in caplog.text
        accepted = sink_to(broker.url, credentials=Credentials("bench", "right"))
        connect(accepted)
        accepted.close(2.0)


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls_with_a_private_ca(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    certificates(tmp_path)
    with mosquitto(settings=tls_settings(tmp_path)) as broker:
        url = f"mqtts://localhost:{broker.port}"
        sink = sink_to(url, credentials=Credentials(ca_file=tmp_path / "ca.crt"))
        connect(sink)
        sink.close(2.0)
        doubtful = sink_to(url, credentials=Credentials(ca_file=tmp_path / "stranger.crt"))

        def refused() -> bool:
            doubtful.write([])
            return "its certificate is refused (self-signed certificate in certificate chain)" in caplog.text

        eventually(refused, 10)
        assert not doubtful.online
    gc.collect()


def test_a_ca_file_that_is_none_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(ConfigError, match=r"mqtt\.ca_file"):
        sink_to("mqtts://127.0.0.1:1", credentials=Credentials(ca_file=tmp_path / "ca.crt"))
