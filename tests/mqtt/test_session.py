"""The session against real brokers, with an outside client to see what they see."""

from __future__ import annotations

import contextlib
import gc
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge.cli.local_broker import BrokerKind, local_broker
from edge.cli.local_server import wait_until_listening
from edge.errors import ConfigError
from edge.mqtt.client import UNACKNOWLEDGED_MOST
from edge.mqtt.message import Message, Received
from edge.mqtt.session import Delivery, Session
from edge.mqtt.tls import Credentials
from edge.pacing import Deadline
from tests.conftest import eventually
from tests.servers import (
    certificates,
    client_certificate,
    client_certificate_settings,
    free_port,
    mosquitto,
    no_subscriptions_settings,
    one_session_a_user_settings,
    relay,
    tls_settings,
    websocket_settings,
)

pytestmark = pytest.mark.integration

STATE = "pose/v1/bench/state"
COMMANDS = "pose/v1/bench/cmd/+"
PING = "pose/v1/bench/cmd/ping"
EVENT = "pose/v1/bench/camera/front/event"
LANDMARKS = "pose/v1/bench/camera/front/landmarks"
OFFLINE = Message(STATE, b"offline", qos=1, retain=True, content_type="text/plain")

_ACCEPTED = b"\x20\x03\x00\x00\x00"  # CONNACK of MQTT 5

# paho leaves a socket whose handshake failed to the garbage collector.
leaves_sockets = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Device:
    """A session that says `online` and listens to commands, as a daemon does."""

    def __init__(self, *urls: str, **options: Any) -> None:
        self.received: list[Received] = []
        self.onlines = 0
        settings: dict[str, Any] = {
            "client_id": "edge-pose.bench",
            "version": "auto",
            "credentials": Credentials(),
            "will": OFFLINE,
            "on_online": self._introduce,
            "on_message": self.received.append,
        }
        self.session = Session(urls, **{**settings, **options})

    def until(self, condition: Callable[[], object], timeout_s: float = 10) -> None:
        def so() -> object:
            self.session.service()
            return condition()

        eventually(so, timeout_s)

    def connect(self, timeout_s: float = 10) -> None:
        self.until(lambda: self.session.online, timeout_s)

    def lose(self) -> None:
        self.until(lambda: not self.session.online)

    def close(self) -> None:
        self.session.close(Message(STATE, b"stopped", qos=1, retain=True), 2.0)

    def stays_online(self, seconds: float) -> bool:
        end = Deadline(seconds)
        while end.left_s():
            self.session.service()
            time.sleep(0.02)
        return self.session.online

    def _introduce(self) -> None:
        self.onlines += 1
        self.session.subscribe(COMMANDS, 1)
        self.session.publish(Message(STATE, b"online", qos=1, retain=True))


class Outside:
    """A client of another kind that keeps what it receives, and can send."""

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

    def last(self, topic: str) -> paho.MQTTMessage:
        return next(message for message in reversed(self.messages) if message.topic == topic)

    def send(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False, **properties: Any) -> None:
        packed: Any = Properties(PacketTypes.PUBLISH)
        for name, value in properties.items():
            setattr(packed, name, value)
        self._client.publish(topic, payload, qos, retain, packed).wait_for_publish(5)


@contextlib.contextmanager
def outside(port: int) -> Iterator[Outside]:
    wait_until_listening(port)  # a broker opens its listeners one after the other
    client = Outside(port)
    try:
        yield client
    finally:
        client.close()


def listener_settings(scheme: str, tls: str, *, plain: int) -> str:
    """Lines of mosquitto.conf: the listener speaks `scheme`, with the lines `tls` if that has TLS; plain: one more."""
    lines = tls if scheme in ("mqtts", "wss") else ""
    return f"{lines}\n" + (websocket_settings(plain) if scheme in ("ws", "wss") else f"listener {plain} 127.0.0.1")


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


# --- addresses and ways ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("mqtt://broker", "broker:1883"),
        ("mqtts://broker", "broker:8883"),
        ("ws://broker", "broker:80"),
        ("wss://broker", "broker:443"),
        ("wss://broker:9001/somewhere?else", "broker:9001"),
        ("mqtt://[::1]", "[::1]:1883"),
    ],
)
def test_an_address_has_a_port_in_any_case(url: str, address: str) -> None:
    assert Device(url).session.address == address


@pytest.mark.parametrize("version", ["auto", "3.1.1"])
@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_every_way_to_a_broker_carries_both_directions(scheme: str, version: str, tmp_path: Path) -> None:
    certificates(tmp_path)
    client_certificate(tmp_path, "bench")
    credentials = Credentials("", "", *(tmp_path / name for name in ("ca.crt", "bench.crt", "bench.key")))
    seen_from = free_port()
    settings = listener_settings(scheme, client_certificate_settings(tmp_path), plain=seen_from)
    with mosquitto(settings=settings) as broker, outside(seen_from) as seen:
        device = Device(f"{scheme}://localhost:{broker.port}", credentials=credentials, version=version)
        device.connect()
        large, delivered = bytes(range(256)) * 800, list[int]()
        device.session.publish(Message(EVENT, large, qos=1), lambda: delivered.append(1))
        device.until(lambda: delivered == [1])
        eventually(lambda: seen.payloads(EVENT) == [large])
        # No larger: mosquitto's websockets stop in the middle of a packet when several large ones follow.
        for number in range(20):
            seen.send(PING, large[: 1000 * number] + b"%d" % number)
        device.until(lambda: len(device.received) == 20)
        assert [message.payload[-2:] for message in device.received[10:]] == [b"%d" % n for n in range(10, 20)]
        device.close()
        eventually(lambda: seen.payloads(STATE) == [b"online", b"stopped"])


def test_the_first_address_that_answers_is_used_and_every_line_names_its_own(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "edge.mqtt")
    dead = free_port()
    with mosquitto() as broker:
        device = Device(f"mqtt://127.0.0.1:{dead}", broker.url)
        assert device.session.address == f"127.0.0.1:{dead}"
        device.connect()
        assert device.session.address == f"127.0.0.1:{broker.port}"
        assert device.session.failures == 1
        assert device.session.trouble == f"127.0.0.1:{dead}: Connection refused"
        device.close()
    assert warnings(caplog) == [
        f"broker 127.0.0.1:{dead}: Connection refused; trying 127.0.0.1:{broker.port}"  # at once, without a pause
    ]
    assert f"connected to broker 127.0.0.1:{broker.port} with MQTT 5" in caplog.text


def test_only_a_whole_round_without_success_is_followed_by_a_pause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "edge.mqtt")
    ports = [free_port() for _ in range(3)]
    device = Device(*(f"mqtt://127.0.0.1:{port}" for port in ports))
    device.until(lambda: device.session.failures == 6)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 6
    for number, line in enumerate(lines):
        assert line.startswith(f"broker 127.0.0.1:{ports[number % 3]}: ")
        assert ("next try in" in line) == (number % 3 == 2)
    assert len(warnings(caplog)) == 3  # one for each of them
    device.session.close(None, 0.1)


def test_after_a_loss_the_first_address_comes_first_again() -> None:
    first = free_port()
    with mosquitto() as second:
        device = Device(f"mqtt://127.0.0.1:{first}", second.url)
        device.connect()
        with mosquitto(port=first), relay(second.port):
            second.process.kill()
            device.lose()
            device.connect()
            assert device.session.address == f"127.0.0.1:{first}"
            device.close()


@leaves_sockets
def test_an_address_that_accepts_and_says_nothing_is_given_up_for_the_next() -> None:
    with mosquitto() as frozen, mosquitto(settings=websocket_settings()) as frozen_too, mosquitto() as alive:
        frozen.process.send_signal(signal.SIGSTOP)
        frozen_too.process.send_signal(signal.SIGSTOP)
        device = Device(frozen.url, f"ws://127.0.0.1:{frozen_too.port}", alive.url)
        longest_s = 0.0

        def online() -> bool:
            nonlocal longest_s
            began_s = time.monotonic()
            device.session.service()
            longest_s = max(longest_s, time.monotonic() - began_s)
            return device.session.online

        eventually(online, 20)
        assert device.session.address == f"127.0.0.1:{alive.port}"
        assert longest_s < 1  # a busy machine may take its time to start a thread; nothing waits for the network
        device.close()
    gc.collect()


# amqtt leaves the connection it could not make sense of to the garbage collector.
@leaves_sockets
def test_each_address_is_spoken_to_in_its_own_version() -> None:
    with local_broker(BrokerKind.BUILTIN) as old, mosquitto() as new:
        nowhere = f"mqtt://127.0.0.1:{free_port()}"
        for urls in ((old.url, nowhere), (nowhere, old.url)):
            device = Device(*urls)
            device.connect(30)
            assert (device.session.address, device.session.protocol) == (f"127.0.0.1:{old.port}", "3.1.1")
            device.close()
        device = Device(new.url, old.url)
        device.connect()
        assert device.session.protocol == "5"
        new.process.kill()
        device.lose()
        device.connect(30)
        assert (device.session.address, device.session.protocol) == (f"127.0.0.1:{old.port}", "3.1.1")
        device.close()
    gc.collect()


@leaves_sockets
def test_a_broker_without_mqtt_5_does_the_same_without_properties() -> None:
    with local_broker(BrokerKind.BUILTIN) as broker:
        device = Device(broker.url)
        device.connect(30)
        delivered = list[str]()
        reply = Message("pose/v1/bench/cmd/echo", b"{}", 1, False, 5, "application/json", (("seq", "1"),), b"id")
        assert device.session.publish(reply, lambda: delivered.append("echo")) is Delivery.TAKEN
        device.until(lambda: delivered == ["echo"] and device.received)
        assert device.received == [Received("pose/v1/bench/cmd/echo", b"{}", 1, False)]
        device.close()
    gc.collect()


def test_a_broker_that_was_not_ready_is_spoken_to_in_5_again() -> None:
    with socket.create_server(("127.0.0.1", 0)) as booting:
        port = booting.getsockname()[1]
        device = Device(f"mqtt://127.0.0.1:{port}")
        booting.settimeout(0.01)

        def closed_once() -> bool:
            with contextlib.suppress(TimeoutError):
                booting.accept()[0].close()
            return device.session.protocol == "3.1.1"  # the next one to be tried

        device.until(closed_once)
    for _ in range(2):  # whatever the first connection speaks, the second one speaks 5
        with mosquitto(port=port):
            device.connect()
        device.lose()
    assert device.session.protocol == "5"
    device.session.close(None, 0.1)


@leaves_sockets
def test_what_is_no_websocket_is_said_to_be_none(caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto() as broker:
        device = Device(f"ws://127.0.0.1:{broker.port}")
        device.until(lambda: device.session.failures)
        assert "no websocket with what is there" in device.session.trouble
        assert "mqtt.url" in warnings(caplog)[0]
        device.session.close(None, 0.1)
    gc.collect()


# --- who is who ------------------------------------------------------------------------------------------------------


def test_a_wrong_password_is_one_line_with_the_remedy(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "bench", "right"], check=True)
    passwords.chmod(0o644)
    with mosquitto(settings=f"allow_anonymous false\npassword_file {passwords}") as broker:
        device = Device(broker.url, credentials=Credentials("bench", "wrong"))
        device.until(lambda: device.session.failures == 2)
        assert len(warnings(caplog)) == 1
        assert "mqtt.password_file" in warnings(caplog)[0]
        assert "wrong" not in caplog.text
        device.session.close(None, 0.1)
        accepted = Device(broker.url, credentials=Credentials("bench", "right"))
        accepted.connect()
        accepted.close()


@leaves_sockets
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
def test_a_broker_with_a_strange_certificate_is_refused(scheme: str, tmp_path: Path) -> None:
    certificates(tmp_path)
    with mosquitto(settings=listener_settings(scheme, tls_settings(tmp_path), plain=free_port())) as broker:
        for host, ca, why in (("localhost", "stranger", "self-signed certificate"), ("127.0.0.1", "ca", "mismatch")):
            url = f"{scheme}://{host}:{broker.port}"
            device = Device(url, credentials=Credentials(ca_file=tmp_path / f"{ca}.crt"))
            device.until(lambda device=device: device.session.failures)  # type: ignore[misc]
            assert "its certificate is refused" in device.session.trouble
            assert why in device.session.trouble
            device.session.close(None, 0.1)
    gc.collect()


@leaves_sockets
@pytest.mark.parametrize("scheme", ["mqtts", "wss"])
@pytest.mark.parametrize("tls", ["tlsv1.2", "tlsv1.3"])
@pytest.mark.parametrize("shown", [None, "intruder"])
def test_without_the_right_client_certificate_the_line_says_where_it_belongs(
    scheme: str, tls: str, shown: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates(tmp_path)
    credentials = Credentials(ca_file=tmp_path / "ca.crt")
    if shown:
        client_certificate(tmp_path, shown, authority="stranger")
        credentials = Credentials(
            ca_file=tmp_path / "ca.crt", cert_file=tmp_path / f"{shown}.crt", key_file=tmp_path / f"{shown}.key"
        )
    demands = f"{client_certificate_settings(tmp_path)}\ntls_version {tls}"
    with mosquitto(settings=listener_settings(scheme, demands, plain=free_port())) as broker:
        device = Device(f"{scheme}://localhost:{broker.port}", credentials=credentials)
        device.until(lambda: device.session.failures)
        assert not device.session.online
        assert "mqtt.cert_file" in warnings(caplog)[0]
        device.session.close(None, 0.1)
    gc.collect()


def test_files_that_are_no_certificates_are_configuration_errors(tmp_path: Path) -> None:
    certificates(tmp_path)
    client_certificate(tmp_path, "bench")
    client_certificate(tmp_path, "other")
    client_certificate(tmp_path, "sealed", passphrase="secret")
    (tmp_path / "junk").write_text("not a certificate")
    (tmp_path / "both").write_text((tmp_path / "bench.crt").read_text() + (tmp_path / "bench.key").read_text())

    def problem(ca: str | None, cert: str | None, key: str | None, scheme: str = "wss") -> str:
        files = [None if name is None else tmp_path / name for name in (ca, cert, key)]
        credentials = Credentials("", "", *files)
        try:
            Device(f"{scheme}://127.0.0.1:1", credentials=credentials)
        except ConfigError as error:
            return str(error)
        return ""

    assert problem("ca.crt", "bench.crt", "bench.key") == ""
    assert problem("ca.crt", "both", None) == ""
    assert problem("junk", "junk", "junk", scheme="ws") == ""  # nobody looks at them
    for files, key, why in (
        (("junk", None, None), "mqtt.ca_file", "CA certificates"),
        (("missing", None, None), "mqtt.ca_file", "No such file"),
        (("ca.crt", "junk", "bench.key"), "mqtt.cert_file", "is no certificate"),
        (("ca.crt", "missing", "bench.key"), "mqtt.cert_file", "No such file"),
        (("ca.crt", ".", "bench.key"), "mqtt.cert_file", "Is a directory"),
        (("ca.crt", None, "bench.key"), "mqtt.cert_file", "name both"),
        (("ca.crt", "bench.crt", None), "mqtt.key_file", "holds no key"),
        (("ca.crt", "bench.crt", "junk"), "mqtt.key_file", "holds no key"),
        (("ca.crt", "bench.crt", "missing"), "mqtt.key_file", "No such file"),
        (("ca.crt", "bench.crt", "other.key"), "mqtt.key_file", "does not belong"),
        (("ca.crt", "sealed.crt", "sealed.key"), "mqtt.key_file", "passphrase"),
    ):
        said = problem(*files)
        assert key in said, files
        assert why in said, files
        assert "secret" not in said
        assert "\n" not in said


# --- what is announced -----------------------------------------------------------------------------------------------


def test_messages_say_what_they_are() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        device = Device(broker.url)
        device.connect()
        device.session.publish(
            Message(EVENT, b"{}", 1, False, 30, "application/json", (("seq", "7"), ("t_us", "9")), b"\x00\xff")
        )
        device.session.publish(Message(LANDMARKS, b"plain"))
        device.until(lambda: seen.payloads(LANDMARKS) and seen.payloads(EVENT))
        properties: Any = seen.last(EVENT).properties
        assert properties.ContentType == "application/json"
        assert properties.UserProperty == [("v", "1"), ("seq", "7"), ("t_us", "9")]
        assert properties.CorrelationData == b"\x00\xff"
        assert 0 < properties.MessageExpiryInterval <= 30
        plain: Any = seen.last(LANDMARKS).properties
        assert plain.UserProperty == [("v", "1")]
        assert not hasattr(plain, "ContentType")
        assert not hasattr(plain, "MessageExpiryInterval")
        device.close()


@pytest.mark.parametrize("unnoticed", [False, True])
def test_a_blip_of_the_network_announces_nothing(*, unnoticed: bool) -> None:
    """unnoticed: the broker still believes in the old connection when the new one comes."""
    with mosquitto() as broker, relay(broker.port) as network, outside(broker.port) as seen:
        device = Device(f"mqtt://127.0.0.1:{network.port}", will_delay_s=2)
        device.connect()
        eventually(lambda: seen.payloads(STATE) == [b"online"])
        for times in (2, 3):  # the first session and one that was resumed
            network.cut(unnoticed=unnoticed)
            device.lose()
            device.connect()
            eventually(lambda times=times: len(seen.payloads(STATE)) == times)  # type: ignore[misc]
        assert device.stays_online(3)
        assert seen.payloads(STATE) == [b"online"] * 3
        device.close()


def test_who_does_not_come_back_is_announced_after_the_delay() -> None:
    with mosquitto() as broker, relay(broker.port) as network, outside(broker.port) as seen:
        device = Device(f"mqtt://127.0.0.1:{network.port}", will_delay_s=2)
        device.connect()
        eventually(lambda: seen.payloads(STATE) == [b"online"])
        network.cut()
        gone_s = time.monotonic()
        eventually(lambda: seen.payloads(STATE) == [b"online", b"offline"])
        assert 1 <= time.monotonic() - gone_s < 6  # mosquitto counts in whole seconds
        will = seen.last(STATE)
        properties: Any = will.properties
        assert properties.ContentType == "text/plain"
        assert properties.UserProperty == [("v", "1")]
        device.session.close(None, 0.1)
        with outside(broker.port) as late:
            eventually(lambda: late.payloads(STATE) == [b"offline"])


def test_with_3_1_1_a_loss_is_announced_at_once() -> None:
    with mosquitto() as broker, relay(broker.port) as network, outside(broker.port) as seen:
        device = Device(f"mqtt://127.0.0.1:{network.port}", version="3.1.1", will_delay_s=60)
        device.connect()
        eventually(lambda: seen.payloads(STATE) == [b"online"])
        network.cut()
        eventually(lambda: seen.payloads(STATE) == [b"online", b"offline"], 3)
        device.session.close(None, 0.1)


def test_commands_of_a_blip_arrive_after_it_and_those_before_the_start_never() -> None:
    with mosquitto() as broker, relay(broker.port) as network, outside(broker.port) as seen:
        device = Device(f"mqtt://127.0.0.1:{network.port}")
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        network.cut()
        seen.send(PING, b"meanwhile")
        device.lose()
        device.connect()
        device.until(lambda: device.received)
        assert [message.payload for message in device.received] == [b"meanwhile"]
        device.until(lambda: seen.payloads(STATE) == [b"online"] * 2)

        network.cut()  # and now the process dies
        seen.send(PING, b"poison")
        device.session.close(None, 0.1)
        successor = Device(f"mqtt://127.0.0.1:{network.port}")
        successor.connect()
        successor.until(lambda: seen.payloads(STATE).count(b"online") == 3)  # after it has subscribed
        seen.send(PING, b"after")
        successor.until(lambda: successor.received)
        assert [message.payload for message in successor.received] == [b"after"]
        successor.close()


def test_who_says_goodbye_leaves_no_session_behind() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        device = Device(broker.url)
        device.connect()
        device.close()
        eventually(lambda: seen.payloads(STATE) == [b"online", b"stopped"])
        seen.send(PING, b"nobody there")
        heir = Device(broker.url)
        heir.session._known_here = True  # it would resume a session if there were one
        heir.connect()
        assert heir.stays_online(0.5)
        assert heir.received == []
        heir.close()


@pytest.mark.parametrize("turns", [1, 2, 5])
def test_who_lets_go_before_it_is_accepted_is_gone_for_good(turns: int) -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        first = Device(broker.url)
        for _ in range(turns):
            first.session.service()
        first.close()
        second = Device(broker.url)
        second.connect()
        assert second.stays_online(1.5)  # a client of the same name would throw it out by now
        second.close()
        eventually(lambda: seen.payloads(STATE)[-1:] == [b"stopped"])
        assert b"offline" not in seen.payloads(STATE)


# --- receiving -------------------------------------------------------------------------------------------------------


def test_what_comes_in_keeps_all_that_its_sender_said() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        device = Device(broker.url)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        said: dict[str, Any] = {
            "CorrelationData": b"\x00\xff\x10",
            "ResponseTopic": "pose/v1/bench/reply/ping/me",
            "ContentType": "application/json",
            "UserProperty": [("a", "1"), ("a", "2"), ("", "ü\U0001f600")],
        }
        seen.send(PING, b"\xff\x00", **said)
        seen.send(PING, b"", qos=0, ResponseTopic="x")
        device.until(lambda: len(device.received) == 2)
        assert device.received == [
            Received(
                PING,
                b"\xff\x00",
                1,
                False,
                b"\x00\xff\x10",
                "pose/v1/bench/reply/ping/me",
                "application/json",
                (("a", "1"), ("a", "2"), ("", "ü\U0001f600")),
            ),
            Received(PING, b"", 0, False, None, "x"),
        ]
        device.close()


def test_what_tls_has_decrypted_already_is_read_though_the_socket_has_nothing_more(tmp_path: Path) -> None:
    certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    enough = threading.Event()

    def serve() -> None:
        with context.wrap_socket(listener.accept()[0], server_side=True) as connection:
            connection.recv(1000)
            connection.sendall(_ACCEPTED + 5 * b"\x30\x05\x00\x01t\x00!")  # in one record
            enough.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve)
        server.start()
        url = f"mqtts://localhost:{listener.getsockname()[1]}"
        device = Device(url, version="5", credentials=Credentials(ca_file=tmp_path / "ca.crt"))
        device.until(lambda: device.received == [Received("t", b"!", 0, False)] * 5)
        enough.set()
        server.join()
        device.session.close(None, 0.1)


def test_a_retained_command_shows_that_it_is() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        seen.send(PING, b"old", retain=True)
        device = Device(broker.url)
        device.connect()
        device.until(lambda: device.received)
        assert device.received == [Received(PING, b"old", 1, True)]
        device.close()


def test_a_failing_handler_is_one_line_and_the_connection_stays(caplog: pytest.LogCaptureFixture) -> None:
    handled = list[bytes]()

    def handle(received: Received) -> None:
        handled.append(received.payload)
        raise LookupError(received.payload)

    with mosquitto(settings="max_inflight_messages 1") as broker, outside(broker.port) as seen:
        device = Device(broker.url, on_message=handle)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        for payload in (b"1", b"2", b"3"):  # with one in flight, each comes only when the one before is acknowledged
            seen.send(PING, payload)
        device.until(lambda: handled == [b"1", b"2", b"3"])
        assert device.stays_online(0.3)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert "LookupError" in caplog.text
        device.close()


def test_a_handler_may_publish_as_much_as_anybody() -> None:
    deliveries = list[Delivery]()
    with mosquitto() as broker, outside(broker.port) as seen:

        def answer(received: Received) -> None:
            deliveries.extend(device.session.publish(Message(LANDMARKS, b"%d" % number)) for number in range(5))
            deliveries.append(device.session.publish(Message("pose/v1/bench/reply/ping", b"{}", qos=1)))

        device = Device(broker.url, on_message=answer)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        seen.send(PING, b"{}")
        device.until(lambda: seen.payloads("pose/v1/bench/reply/ping"))
        assert deliveries == [Delivery.TAKEN] * 6
        assert len(seen.payloads(LANDMARKS)) == 5
        device.close()


def test_a_message_that_paho_can_not_read_is_skipped_and_not_sent_again(caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto() as broker:

        def send(payload: str, *options: str) -> None:  # Outside, which is paho too, would be thrown out by its own
            command = ["mosquitto_pub", "-V", "5", "-p", str(broker.port), "-t", PING, "-m", payload, *options]
            subprocess.run(command, check=True)

        send("retained", "-q", "1", "-r", "-D", "publish", "user-property", "mark", "\ufeff")
        device = Device(broker.url)
        device.connect()
        device.until(lambda: len(warnings(caplog)) == 1)
        send("poison", "-q", "1", "-D", "publish", "content-type", "\ufeff")
        send("poison", "-q", "0", "-D", "publish", "response-topic", "\ufeff")
        send("fine", "-q", "1")
        device.until(lambda: device.received)
        assert [message.payload for message in device.received] == [b"fine"]
        assert (device.onlines, device.session.failures) == (1, 0)
        assert len(warnings(caplog)) == 1
        assert "skipped" in warnings(caplog)[0]
        device.close()


def test_a_topic_that_nobody_can_publish_to_is_no_response_topic() -> None:
    message: Any = paho.MQTTMessage(topic=b"t")
    message.properties = Properties(PacketTypes.PUBLISH)
    message.properties.ResponseTopic = "pose/+/#"
    from edge.mqtt.client import received as _received

    received = _received(message)
    assert received is not None
    assert received.response_topic == ""
    assert _received(paho.MQTTMessage(topic=b"pose/\xff\xfe")) is None


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_refused_subscription_is_one_line(version: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto(settings=no_subscriptions_settings(tmp_path)) as broker, relay(broker.port) as network:
        device = Device(f"mqtt://127.0.0.1:{network.port}", version=version)
        device.connect()
        device.until(lambda: f"refuses the subscription to {COMMANDS}" in caplog.text)
        assert device.stays_online(0.2)
        network.cut()
        device.lose()
        device.connect()
        assert device.stays_online(0.3)
        refusals = [line for line in warnings(caplog) if "subscription" in line]
        assert len(refusals) == 1
        assert f"broker 127.0.0.1:{network.port}" in refusals[0]
        device.close()


def test_packets_beyond_the_limit_never_arrive_and_do_no_harm() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        device = Device(broker.url, max_packet_bytes=10_000)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        seen.send(PING, bytes(20_000))
        seen.send(PING, b"small")
        device.until(lambda: device.received)
        assert [message.payload for message in device.received] == [b"small"]
        assert device.session.failures == 0
        device.close()


def test_with_3_1_1_a_retained_message_beyond_the_limit_is_cut_and_keeps_nobody_away() -> None:
    with mosquitto() as broker, outside(broker.port) as seen:
        seen.send(PING, bytes(5_000_000), retain=True)
        device = Device(broker.url, version="3.1.1", max_packet_bytes=10_000)
        device.connect()
        device.until(lambda: device.received)
        assert 8192 < len(device.received[0].payload) <= 20_000, "more than a command may have, and no more memory"
        seen.send(PING, b"small")
        device.until(lambda: len(device.received) == 2)
        assert device.received[1].payload == b"small"
        assert device.session.failures == 0
        device.close()


# --- acknowledgements ------------------------------------------------------------------------------------------------


def test_a_message_is_delivered_once_it_is_acknowledged() -> None:
    # The broker takes two at a time and says so. paho would send more, over which others end the connection.
    with mosquitto(settings="max_inflight_messages 2") as broker, outside(broker.port) as seen:
        device = Device(broker.url)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        delivered = list[int]()
        for number in range(60):
            taken = device.session.publish(
                Message(EVENT, b"%d" % number, qos=1),
                lambda number=number: delivered.append(number),  # type: ignore[misc]
            )
            assert taken is Delivery.TAKEN
        assert delivered == []  # from `service` only
        assert len(device.session._client._out_messages) == 2
        device.until(lambda: len(delivered) == 60)
        assert delivered == list(range(60))
        eventually(lambda: len(seen.payloads(EVENT)) == 60)
        assert device.session.failures == 0
        device.close()


def test_a_broker_that_never_acknowledges_costs_bounded_memory_and_hears_nothing_twice() -> None:
    with mosquitto() as broker, relay(broker.port) as network, outside(broker.port) as seen:
        device = Device(f"mqtt://127.0.0.1:{network.port}")
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        assert device.stays_online(0.2)
        network.hold()
        early, late = list[int](), list[int]()
        session = device.session
        taken = [session.publish(Message(EVENT, b"early", qos=1), lambda: early.append(1)) for _ in range(200)]
        assert taken.count(Delivery.TAKEN) == UNACKNOWLEDGED_MOST
        assert taken[UNACKNOWLEDGED_MOST:] == [Delivery.SLOW] * (200 - UNACKNOWLEDGED_MOST)
        assert session.publish(Message(LANDMARKS, b"still")) is Delivery.TAKEN  # the kernel has room for it
        network.cut()
        device.lose()
        assert session.publish(Message(EVENT, b"early", qos=1), lambda: early.append(1)) is Delivery.DISCONNECTED
        device.connect()
        session.publish(Message(EVENT, b"late", qos=1), lambda: late.append(1))
        device.until(lambda: late)
        assert device.stays_online(0.5)
        assert (early, late) == ([], [1])
        # The broker, too, keeps nothing of the connection that was lost.
        assert seen.payloads(EVENT) == [b"late"]
        device.close()


def test_ids_that_go_round_do_not_acknowledge_what_is_still_open() -> None:
    with mosquitto() as broker, relay(broker.port) as network:
        device = Device(f"mqtt://127.0.0.1:{network.port}")
        device.connect()
        assert device.stays_online(0.2)
        session, delivered = device.session, list[int]()
        network.hold()
        session.publish(Message(EVENT, b"first", qos=1), lambda: delivered.append(1))
        (mid,) = session._unacknowledged
        session._client._last_mid = mid - 1  # as after 65535 more messages
        assert session.publish(Message(LANDMARKS, b"same id")) is Delivery.TAKEN
        session._client._last_mid = mid - 1
        session.publish(Message(EVENT, b"second", qos=1), lambda: delivered.append(2))
        session.service()
        assert delivered == []
        assert len(session._unacknowledged) == 2
        network.release()
        device.until(lambda: sorted(delivered) == [1, 2])
        device.close()


def test_a_refused_message_is_not_delivered_and_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = tmp_path / "acl"
    acl.write_text(f"topic readwrite {STATE}\ntopic read {COMMANDS}\n")
    acl.chmod(0o644)
    with mosquitto(settings=f"acl_file {acl}") as broker:
        device = Device(broker.url)
        device.connect()
        delivered = list[int]()
        for _ in range(3):
            device.session.publish(Message(EVENT, b"{}", qos=1), lambda: delivered.append(1))
        device.until(lambda: EVENT in caplog.text)
        assert device.stays_online(0.3)
        assert delivered == []
        errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len(errors) == 1
        assert "access control list" in errors[0]
        device.close()


def test_what_a_broker_is_too_small_for_does_not_cost_the_connection() -> None:
    with mosquitto(settings="max_packet_size 2000") as broker, outside(broker.port) as seen:
        device = Device(broker.url)
        device.connect()
        fits = 2000 - 5 - 2 - len(LANDMARKS) - 2 - 8  # header, topic, packet id, the property v = 1 with its lengths
        assert device.session.publish(Message(LANDMARKS, bytes(2000))) is Delivery.TOO_LARGE
        assert device.session.publish(Message(LANDMARKS, bytes(fits + 1))) is Delivery.TOO_LARGE
        assert device.session.publish(Message(LANDMARKS, bytes(fits))) is Delivery.TAKEN
        device.until(lambda: seen.payloads(LANDMARKS) == [bytes(fits)])
        assert device.stays_online(0.3)
        assert device.session.failures == 0
        device.close()


# --- brokers that go away --------------------------------------------------------------------------------------------


def test_without_a_broker_nothing_is_taken() -> None:
    device = Device(f"mqtt://127.0.0.1:{free_port()}")
    device.session.service()
    assert device.session.publish(Message(LANDMARKS, b"")) is Delivery.DISCONNECTED
    assert device.session.publish(Message(EVENT, b"", qos=1)) is Delivery.DISCONNECTED
    device.session.subscribe(COMMANDS, 1)
    device.close()


def test_a_broker_that_restarts_is_found_again() -> None:
    with mosquitto() as broker:
        device = Device(broker.url)
        device.connect()
    device.lose()
    with mosquitto(port=broker.port), outside(broker.port) as seen:
        device.connect()
        device.until(lambda: seen.payloads(STATE) == [b"online"])
        seen.send(PING, b"{}")
        device.until(lambda: device.received)
        assert device.onlines == 2
        device.close()


@pytest.mark.parametrize("scheme", ["mqtt", "mqtts", "ws", "wss"])
def test_a_frozen_broker_holds_up_nothing_and_reads_on_where_it_stopped(scheme: str, tmp_path: Path) -> None:
    certificates(tmp_path)
    seen_from = free_port()
    settings = listener_settings(scheme, tls_settings(tmp_path), plain=seen_from)
    with mosquitto(settings=settings) as broker, outside(seen_from) as seen:
        credentials = Credentials(ca_file=tmp_path / "ca.crt")
        device = Device(f"{scheme}://localhost:{broker.port}", credentials=credentials)
        device.connect()
        device.until(lambda: seen.payloads(STATE))
        session = device.session
        broker.process.send_signal(signal.SIGSTOP)
        taken = list[bytes]()
        outcome = Delivery.TAKEN
        for number in range(2000):
            payload = b"%06d" % number + bytes(60_000 + number)  # never the same length twice
            session.service()
            outcome = session.publish(Message(LANDMARKS, payload))
            if outcome is not Delivery.TAKEN:
                break
            taken.append(payload)
        assert outcome is Delivery.SLOW
        for _ in range(100):
            session.service()
            assert session.publish(Message(LANDMARKS, b"more")) is Delivery.SLOW
        assert len(session._client._out_packet) == 1  # at most one message waits beyond the kernel's buffers
        broker.process.send_signal(signal.SIGCONT)
        device.until(lambda: not session._client.want_write())
        device.until(lambda: session.publish(Message(EVENT, b"{}", qos=1)) is Delivery.TAKEN)
        device.until(lambda: seen.payloads(EVENT))
        eventually(lambda: len(seen.payloads(LANDMARKS)) == len(taken))
        assert seen.payloads(LANDMARKS) == taken
        assert session.failures == 0

        broker.process.send_signal(signal.SIGSTOP)
        while session.publish(Message(LANDMARKS, bytes(200_000))) is Delivery.TAKEN:
            session.service()
        began_s = time.monotonic()
        session.close(Message(STATE, b"stopped", qos=1), 1.0)
        assert time.monotonic() - began_s < 3
        broker.process.send_signal(signal.SIGCONT)


def met(answer: bytes) -> Session:
    """A session that was given this answer, after it had lost the connection over it."""
    with socket.create_server(("127.0.0.1", 0)) as server, contextlib.ExitStack() as connections:
        server.settimeout(0.01)
        device = Device(f"mqtt://127.0.0.1:{server.getsockname()[1]}", version="5")

        def lost() -> bool:
            with contextlib.suppress(TimeoutError):
                connections.enter_context(server.accept()[0]).sendall(answer)
            return bool(device.session.failures)

        device.until(lost)
        device.session.close(None, 0.1)
        return device.session


def test_two_of_one_name_are_told_so() -> None:
    session = met(_ACCEPTED + b"\xe0\x01\x8e")  # DISCONNECT, session taken over
    assert "another client is named edge-pose.bench too; see device" in session.trouble


@pytest.mark.parametrize(
    "nonsense",
    [b"\xff" * 64, _ACCEPTED + b"\x00\x00", _ACCEPTED + b"\x30\xff\xff\xff\xff\xff", _ACCEPTED + b"\x90\x00"],
)
def test_a_server_that_speaks_nonsense_is_lost_and_nothing_is_raised(nonsense: bytes) -> None:
    assert met(nonsense).trouble


def test_two_of_one_name_are_suspected_also_where_the_broker_does_not_say_so(caplog: pytest.LogCaptureFixture) -> None:
    with mosquitto() as broker:
        names = [
            Session([broker.url], client_id="edge-pose.hall", version="5", credentials=Credentials()) for _ in range(2)
        ]
        try:
            eventually(
                lambda: [each.service() for each in names] and "perhaps another client is named" in caplog.text, 30
            )
        finally:
            for each in names:
                each.close(None, 1.0)


def guest(url: str, **options: Any) -> Session:
    """One that is online."""
    made = Session(
        [url],
        **{"client_id": "edge-pose.guest", "version": "auto", "credentials": Credentials(username="hall"), **options},
        guest=True,
    )

    def online() -> bool:
        made.service()
        return made.online

    eventually(online)
    return made


@pytest.mark.parametrize("sent", ["before the guest comes", "while it is there"])
def test_a_guest_in_anothers_session_announces_nothing_and_takes_nothing(sent: str) -> None:
    with mosquitto(settings=one_session_a_user_settings(port := free_port())) as broker, outside(port) as watcher:
        device = Device(broker.url, credentials=Credentials(username="hall"))
        device.until(lambda: watcher.payloads(STATE) == [b"online"])
        device.until(lambda: not device.session._subscribing)

        def send() -> None:
            for number in range(40):
                watcher.send(PING, b"%d" % number)

        if sent == "before the guest comes":
            send()
        visitor = guest(broker.url)
        assert visitor.is_guest
        if sent == "while it is there":
            send()
            deadline = Deadline(0.5)  # longer than doctor stays
            while deadline.left_s():
                visitor.service()
        visitor.close(None, 1.0)
        device.until(lambda: len({received.payload for received in device.received}) == 40)
        assert device.onlines == 2
        assert device.stays_online(6)  # the will's delay and more
        assert set(watcher.payloads(STATE)) == {b"online"}
        device.close()


def test_a_guest_of_a_broker_that_tells_them_apart_disturbs_nobody_and_leaves_nothing() -> None:
    with mosquitto() as broker:
        device = Device(broker.url)
        device.connect()
        visitor = guest(broker.url)
        assert not visitor.is_guest
        visitor.close(None, 1.0)
        assert device.stays_online(0.5)
        assert device.onlines == 1
        again = guest(broker.url)  # of the same name, which finds what would have been left behind
        assert not again.is_guest
        again.close(None, 1.0)
        device.close()
