"""The site's broker, deploy/broker: who gets in, who may do what, what a revocation does and what outlives a kill."""

from __future__ import annotations

import re
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
import pytest
from paho.mqtt.client import topic_matches_sub
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from edge import config
from edge.mqtt.topics import Topics
from tests.cli.command import edge_pose
from tests.cli.conftest import Daemon
from tests.conftest import CLIP, eventually
from tests.secured_broker import HOST, SHIPPED, Authorities, SecuredBroker, secured_broker

pytestmark = pytest.mark.integration

NOT_AUTHORIZED = 135
NO_SUBSCRIBERS = 16
SESSION_S = 3600
DAEMON = Topics("pose/v1", "hall")
YARD = Topics("pose/v1", "yard")

Site = tuple[SecuredBroker, Authorities]


class Client:
    """A plain paho client with MQTT 5 that keeps what it receives. name: whose certificate; None: none.

    session_s: how long the broker keeps its session. Raises ConnectionRefusedError when it is not let in.
    """

    def __init__(
        self,
        authorities: Authorities,
        name: str | None,
        port: int,
        *,
        host: str = HOST,
        client_id: str = "",
        session_s: int = 0,
        tls: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self.session_present = False
        self.closed = False
        self._answers: dict[int, int] = {}
        self._refusal = ""
        self._accepted = False
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"edge-pose.test-{name}",
            protocol=paho.MQTTv5,
            reconnect_on_failure=False,
        )
        context = ssl.create_default_context(cafile=str(authorities.servers_ca))
        context.maximum_version = tls
        if name is not None:
            context.load_cert_chain(*authorities.certificate(name))
        client.tls_set_context(context)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_message = lambda client, userdata, message: self.messages.append(message)
        client.on_publish = lambda client, userdata, mid, reason, properties: self._answers.update({mid: reason.value})
        client.on_subscribe = lambda client, userdata, mid, reasons, properties: self._answers.update(
            {mid: reasons[0].value}
        )
        options = Properties(PacketTypes.CONNECT)
        options.SessionExpiryInterval = session_s
        try:  # paho leaves the socket open when the handshake fails
            with socket.create_connection((host, port)) as plain, context.wrap_socket(plain, server_hostname=host):
                pass
        except ssl.SSLError as error:
            raise ConnectionRefusedError(str(error)) from None
        client.connect(host, port, clean_start=not session_s, properties=options)
        client.loop_start()
        eventually(lambda: self._accepted or self._refusal)
        if self._refusal and not self._accepted:
            client.loop_stop()
            raise ConnectionRefusedError(self._refusal)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def subscribe(self, topic: str) -> None:
        _, mid = self._client.subscribe(topic, qos=1)
        eventually(lambda: mid in self._answers)

    def publish(self, topic: str, payload: bytes = b"x", *, retain: bool = False) -> int:
        """The broker's reason code."""
        sent = self._client.publish(topic, payload, qos=1, retain=retain)
        eventually(lambda: sent.mid in self._answers)
        return self._answers[sent.mid]

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in list(self.messages) if message.topic == topic]

    def _connected(self, client: object, userdata: object, flags: Any, reason: Any, properties: object) -> None:
        self.session_present = flags.session_present
        self._accepted = not reason.is_failure
        self._refusal = str(reason) if reason.is_failure else ""

    def _disconnected(self, client: object, userdata: object, flags: Any, reason: Any, properties: object) -> None:
        self._refusal = self._refusal or str(reason)
        self.closed = True


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with secured_broker() as (broker, authorities):
        for name in ("hall", "yard"):
            authorities.device(name)
        authorities.person("olga", "operator")
        authorities.person("rita", "reader")
        yield broker, authorities


def device(site: Site, name: str, **options: Any) -> Client:
    return Client(site[1], name, site[0].devices_port, **options)


def person(site: Site, name: str, **options: Any) -> Client:
    return Client(site[1], name, site[0].people_port, **options)


# --- who gets in


def test_who_has_no_certificate_of_the_port_s_authority_is_refused(site: Site, tmp_path: Path) -> None:
    broker, authorities = site
    for name, port in (
        (None, broker.devices_port),
        (None, broker.people_port),
        ("hall", broker.people_port),
        ("olga", broker.devices_port),
        ("broker", broker.devices_port),
        ("broker", broker.people_port),
    ):
        with pytest.raises(ConnectionRefusedError):
            Client(authorities, name, port)
    strangers = Authorities(tmp_path)
    strangers.device("hall")
    for extension in ("pem", "key"):
        (authorities.keys / f"stranger.{extension}").write_bytes((strangers.keys / f"hall.{extension}").read_bytes())
    with pytest.raises(ConnectionRefusedError):
        device(site, "stranger")


def test_who_has_expired_is_refused(site: Site) -> None:
    site[1].expired_device("old")
    with pytest.raises(ConnectionRefusedError):
        device(site, "old")


def test_tls_1_2_is_refused(site: Site) -> None:
    for connect, name in ((device, "hall"), (person, "olga")):
        with pytest.raises(ConnectionRefusedError):
            connect(site, name, tls=ssl.TLSVersion.TLSv1_2)


def test_nothing_listens_but_the_two_ports(site: Site) -> None:
    broker, _ = site
    assert broker.listening() == {broker.devices_port, broker.people_port}


# --- who may do what


def test_a_device_speaks_for_itself_alone(site: Site) -> None:
    with device(site, "hall") as hall, person(site, "olga") as olga:
        olga.subscribe("pose/v1/#")
        olga.subscribe("homeassistant/#")
        for topic in (YARD.state, YARD.event("front"), YARD.reply("ping"), YARD.discovery, YARD.command("ping")):
            assert hall.publish(topic) == NOT_AUTHORIZED
        for topic in (DAEMON.command("ping"), "homeassistant/status", "pose/v1/hall", "elsewhere"):
            assert hall.publish(topic) == NOT_AUTHORIZED
        assert hall.publish(DAEMON.event("front"), b"mine") == 0
        eventually(lambda: olga.payloads(DAEMON.event("front")))
        assert [message.payload for message in olga.messages] == [b"mine"]


def test_a_device_hears_nobody_s_commands_but_its_own(site: Site) -> None:
    with device(site, "hall") as hall, device(site, "yard") as yard, person(site, "olga") as olga:
        for topic in (YARD.commands, "pose/v1/+/cmd/+", "#", "$SYS/#"):
            hall.subscribe(topic)
        yard.subscribe(YARD.commands)
        assert olga.publish(YARD.command("ping"), b"for yard") == 0
        assert olga.publish(DAEMON.command("ping"), b"for hall") == 0
        eventually(lambda: hall.messages and yard.messages)
        assert {message.topic for message in hall.messages} == {DAEMON.command("ping")}
        assert yard.payloads(YARD.command("ping")) == [b"for yard"]


def test_nobody_takes_over_the_session_of_a_device(site: Site) -> None:
    def yard() -> Client:
        return device(site, "yard", client_id="edge-pose.yard", session_s=SESSION_S)

    with yard() as session:
        session.subscribe(YARD.commands)
    with person(site, "olga") as olga:
        assert olga.publish(YARD.command("ping"), b"waits") == 0
    # By the name that the broker gives it, and by the one that it gives itself.
    for connect, name in ((device, "hall"), (person, "rita"), (person, "olga")):
        with pytest.raises(ConnectionRefusedError):
            connect(site, name, client_id="yard", session_s=SESSION_S)
        with connect(site, name, client_id="edge-pose.yard", session_s=SESSION_S) as other:
            other.subscribe("$SYS/#")  # a round trip: what waited would have come
            assert not other.payloads(YARD.command("ping"))
    with yard() as session:
        assert session.session_present
        eventually(lambda: session.payloads(YARD.command("ping")) == [b"waits"])


def test_no_device_can_be_a_person_to_the_broker(site: Site) -> None:
    """The rights of operators and readers go by the common name, and their sessions' names begin with a dotted word."""
    _, authorities = site
    for name in ("operator", "reader"):
        with pytest.raises(AssertionError, match=name):
            authorities.device(name)
    (prefix,) = re.findall(r"^clientid_prefixes (.*)$", (SHIPPED / "mosquitto.conf").read_text(), re.MULTILINE)
    assert not config.NAME.fullmatch(f"{prefix}x")


def test_operators_see_everything_and_give_commands(site: Site) -> None:
    with device(site, "hall") as hall, person(site, "olga") as olga:
        olga.subscribe("pose/v1/#")
        hall.subscribe(DAEMON.commands)
        assert olga.publish(DAEMON.command("snapshot"), b"{}") == 0
        eventually(lambda: hall.payloads(DAEMON.command("snapshot")))
        for topic in (DAEMON.reply("snapshot"), DAEMON.snapshot("front")):
            assert hall.publish(topic) == 0
            eventually(lambda topic=topic: olga.payloads(topic))
        assert olga.publish("homeassistant/status") in {0, NO_SUBSCRIBERS}
        for topic in (DAEMON.state, DAEMON.event("front"), DAEMON.reply("ping"), DAEMON.discovery):
            assert olga.publish(topic) == NOT_AUTHORIZED


def test_readers_see_figures_and_neither_pictures_nor_commands(site: Site) -> None:
    with device(site, "hall") as hall, person(site, "rita", session_s=0) as rita, person(site, "olga") as olga:
        rita.subscribe("#")
        unseen = (DAEMON.snapshot("front"), DAEMON.reply("ping"), DAEMON.discovery)
        seen = (DAEMON.info, DAEMON.health, DAEMON.status("front"), DAEMON.landmarks("front"), DAEMON.event("front"))
        for topic in (*unseen, *seen):
            assert hall.publish(topic) in {0, NO_SUBSCRIBERS}
        olga.publish(DAEMON.command("ping"))
        assert hall.publish(DAEMON.state, b"online") == 0
        eventually(lambda: rita.payloads(DAEMON.state))
        assert {message.topic for message in rita.messages} == {*seen, DAEMON.state}
        for topic in (DAEMON.command("ping"), DAEMON.state, "homeassistant/status"):
            assert rita.publish(topic) == NOT_AUTHORIZED


def rights(whom: str, access: str) -> set[str]:
    """Topics and filters of the ACL file. whom: pattern, or a user's name."""
    found, user = set(), ""
    for line in (SHIPPED / "acl").read_text().splitlines():
        if match := re.fullmatch(r"(user|topic|pattern) (?:(read|write) )?(\S+)", line):
            kind, given, what = match.groups()
            user = what if kind == "user" else user
            if given == access and (kind if kind == "pattern" else user) == whom:
                found.add(what.replace("%u", DAEMON.device))
    return found


def allowed(topic: str, filters: set[str]) -> bool:
    return any(topic_matches_sub(each, topic) for each in filters)


def test_the_acl_allows_what_the_daemon_does() -> None:
    heard = {DAEMON.state, DAEMON.command("ping"), "homeassistant/status"}
    of_camera = {getattr(DAEMON, name)("front") for name in ("landmarks", "summary", "status", "event", "snapshot")}
    said = {DAEMON.state, DAEMON.info, DAEMON.health, DAEMON.reply("ping"), DAEMON.discovery, *of_camera}
    public = {name for name in dir(Topics) if not name.startswith("_")} - {"prefix", "device", "camera_of_status"}
    known = {"landmarks", "summary", "status", "event", "snapshot", "state", "info", "health", "reply", "discovery"}
    assert public == known | {"commands", "command"}, "topics of the daemon that this test knows nothing of"
    assert {topic for topic in said if not allowed(topic, rights("pattern", "write"))} == set()
    assert {topic for topic in heard if not allowed(topic, rights("pattern", "read"))} == set()
    for user in ("operator", "reader"):
        assert rights(user, "read"), user


# --- what a revocation does, and what is kept


def test_who_is_revoked_is_out_and_others_lose_nothing() -> None:
    with secured_broker() as site:
        broker, authorities = site
        for name in ("hall", "yard"):
            authorities.device(name)
        authorities.person("olga", "operator")
        with device(site, "yard", session_s=SESSION_S) as yard:
            yard.subscribe(YARD.commands)
        with person(site, "olga", session_s=SESSION_S) as olga:
            olga.subscribe("pose/v1/+/camera/+/event")
            olga.publish(YARD.command("ping"), b"waits")
        with device(site, "hall") as hall:
            for number in range(20):
                assert hall.publish(DAEMON.event("front"), b"%d" % number) == 0
            assert hall.publish(DAEMON.state, b"online", retain=True) in {0, NO_SUBSCRIBERS}
            authorities.revoke("devices", "hall")
            broker.bring_crls()
            broker.restart()
            eventually(lambda: hall.closed, 5)
        with pytest.raises(ConnectionRefusedError):
            device(site, "hall")
        with person(site, "olga", session_s=SESSION_S) as olga, device(site, "yard", session_s=SESSION_S) as yard:
            assert olga.session_present
            assert yard.session_present
            eventually(lambda: len(olga.messages) == 20)
            assert [message.payload for message in olga.messages] == [b"%d" % number for number in range(20)]
            eventually(lambda: yard.payloads(YARD.command("ping")) == [b"waits"])
            olga.subscribe(DAEMON.state)
            eventually(lambda: olga.payloads(DAEMON.state) == [b"online"])


def test_what_waits_for_who_is_away_outlives_a_kill(site: Site) -> None:
    broker, _ = site
    with person(site, "rita", client_id="edge-pose.away", session_s=SESSION_S) as rita:
        rita.subscribe(DAEMON.event("+"))
    for kill in range(3):
        with device(site, "hall") as hall:
            for number in range(20):
                assert hall.publish(DAEMON.event("front"), b"%d" % (20 * kill + number)) == 0
            # What is answered after it is on the disk with it: saving comes before the next packet is read.
            hall.publish(DAEMON.info)
            broker.end(signal.SIGKILL)
        broker.start()
        if kill == 1:  # also when nobody is connected at the start, 2.0.21 had its way with that
            broker.restart()
    with person(site, "rita", client_id="edge-pose.away", session_s=SESSION_S) as rita:
        assert rita.session_present
        eventually(lambda: len(rita.messages) >= 60)
        assert [message.payload for message in rita.messages] == [b"%d" % number for number in range(60)]


# --- edge-pose itself


@pytest.fixture
def daemon(site: Site, tmp_path: Path, model: Path) -> Iterator[Daemon]:
    broker, authorities = site
    certificate, key = authorities.certificate("hall")
    config = tmp_path / "config.toml"
    config.write_text(
        f'device = "hall"\nstate_dir = "{tmp_path}"\n'
        f'[mqtt]\nurl = "{broker.devices_url}"\nca_file = "{authorities.servers_ca}"\n'
        f'cert_file = "{certificate}"\nkey_file = "{key}"\nhome_assistant = true\nlandmarks_hz = 10\n'
        f'[camera.front]\nsource = "{CLIP}"\nloop = true\n[camera.gone]\nsource = "rtsp://127.0.0.1:1/gone"\n'
    )
    started = Daemon("-c", str(config), log=tmp_path / "log")
    yield started
    started.process.kill()
    started.process.wait()


def told(site: Site, name: str) -> list[str]:
    """What `edge-pose send` and `watch` are told to connect as that person."""
    _, authorities = site
    certificate, key = authorities.certificate(name)
    files = {"ca_file": authorities.servers_ca, "cert_file": certificate, "key_file": key}
    return [word for name, file in files.items() for word in ("--set", f"mqtt.{name}={file}")]


def test_the_daemon_runs_with_it_and_so_do_send_and_watch(site: Site, daemon: Daemon) -> None:
    broker, _ = site
    with person(site, "olga") as olga:
        olga.subscribe("pose/v1/#")
        olga.subscribe("homeassistant/#")
        eventually(lambda: olga.payloads(DAEMON.state)[-1:] == [b"online"], 30)
        seen: Callable[[str], object] = olga.payloads
        for topic in (DAEMON.info, DAEMON.landmarks("front"), DAEMON.discovery, DAEMON.health):
            eventually(lambda topic=topic: seen(topic), 60)
        eventually(lambda: seen(DAEMON.event("gone")), 60)
        sent = edge_pose("send", "hall", "ping", "--broker", broker.people_url, *told(site, "olga"))
        assert sent.returncode == 0, sent.stderr
        refused = edge_pose(
            "send", "hall", "ping", "--timeout", "3", "--broker", broker.people_url, *told(site, "rita")
        )
        assert refused.returncode == 69, refused.stdout
        watched = edge_pose("watch", broker.people_url, "--seconds", "3", *told(site, "rita"))
        assert watched.returncode == 0, watched.stderr
        assert "online" in watched.stdout
        assert daemon.stop() == 0
        eventually(lambda: olga.payloads(DAEMON.state)[-1] == b"stopped")
    assert "refuses" not in daemon.log, daemon.log
    assert "not authorized" not in daemon.log.lower(), daemon.log
