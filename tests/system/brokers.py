"""Four brokers that people have, each for as long as a test: on a free loopback port, letting anybody in.

What a broker writes goes to a temporary directory, and no service of the system is touched. Programs come from Debian
(requirements/system-packages.sh brokers), Aedes from the npm registry. And a client that speaks with them, paho's and
nothing of edge-pose's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge.children import ending_with_us
from tests import servers
from tests.conftest import eventually
from tests.servers import free_port
from tests.system.nspawn import CACHE

_START_TIMEOUT_S = 60.0
"""Two Erlang nodes take a few seconds each, on a busy machine many."""

_AEDES = "0.51.3"
"""The last one for the Node.js of Debian 12, which is 18."""
_AEDES_BEFORE = "2025-06-01"
"""npm takes what Aedes depends on as it was on that day."""


@dataclass(frozen=True)
class Broker:
    """version: upstream's, as `2.0.11`. username, password: what lets anybody in; mostly nothing."""

    name: str
    version: str
    port: int
    username: str = ""
    password: str = ""

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


@contextlib.contextmanager
def mosquitto() -> Iterator[Broker]:
    with servers.mosquitto() as server:
        yield Broker("mosquitto", _debian_version("mosquitto"), server.port)


@contextlib.contextmanager
def ejabberd() -> Iterator[Broker]:
    """Its MQTT listener alone, and no XMPP. It runs without a node name: such a node asks no port mapper (epmd).

    It lets in any name with any password, but an empty password is refused before anything else is looked at.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="edge-pose-ejabberd-") as name:
        scratch = Path(name)
        config = scratch / "ejabberd.yml"
        config.write_text(_EJABBERD.format(port=port))
        environment = {
            "EJABBERD_CONFIG_PATH": str(config),
            "EJABBERD_LOG_PATH": str(scratch / "ejabberd.log"),
            "ERL_CRASH_DUMP": str(scratch / "crash.dump"),
            "ERL_LIBS": str(_ejabberd_libraries()),
            "HOME": name,
        }
        database = ["-mnesia", "dir", f'"{scratch / "database"}"']
        with _running(["erl", "-noinput", *database, "-s", "ejabberd"], port, scratch, environment):
            yield Broker("ejabberd", _debian_version("ejabberd"), port, "anybody", "anything")


@contextlib.contextmanager
def rabbitmq() -> Iterator[Broker]:
    """Its MQTT listener alone, and no AMQP. It insists on a node name, so it gets a port mapper of its own."""
    port, mapper_port, node_port = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="edge-pose-rabbitmq-") as name:
        scratch = Path(name)
        (scratch / "rabbitmq.conf").write_text(_RABBITMQ.format(port=port))
        (scratch / "plugins").write_text("[rabbitmq_mqtt].\n")
        environment = {
            "HOME": name,  # of the cookie that Erlang's nodes know each other by
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(mapper_port),
            "RABBITMQ_NODENAME": f"edge-pose-{port}@localhost",
            "RABBITMQ_DIST_PORT": str(node_port),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RABBITMQ_CONFIG_FILE": str(scratch / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(scratch / "none"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(scratch / "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(scratch / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(scratch / "database"),
            "RABBITMQ_LOG_BASE": str(scratch / "log"),
            "RABBITMQ_PID_FILE": str(scratch / "pid"),
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the server, it does not wait for it
            "ERL_CRASH_DUMP": str(scratch / "crash.dump"),
        }
        server = "/usr/lib/rabbitmq/bin/rabbitmq-server"  # the one in PATH changes to another user
        with (
            _running(["epmd", "-address", "127.0.0.1", "-port", str(mapper_port)], mapper_port, scratch, environment),
            _running([server], port, scratch, environment),
        ):
            yield Broker("rabbitmq", _debian_version("rabbitmq-server"), port)


@contextlib.contextmanager
def aedes() -> Iterator[Broker]:
    port = free_port()
    script = Path(__file__).with_name("aedes_broker.js")
    command = ["node", str(script), str(_aedes_modules()), str(port)]
    with (
        tempfile.TemporaryDirectory(prefix="edge-pose-aedes-") as scratch,
        _running(command, port, Path(scratch), {}),
    ):
        yield Broker("aedes", _AEDES, port)


BROKERS: Mapping[str, Callable[[], AbstractContextManager[Broker]]] = {
    "mosquitto": mosquitto,
    "ejabberd": ejabberd,
    "rabbitmq": rabbitmq,
    "aedes": aedes,
}


class Client:
    """A plain paho client, connected when it is made, that keeps what it receives.

    version: 5 or 3.1.1. session_s: how long the broker is to keep its subscriptions and what comes for it; 0: no longer
    than the connection. acks: whether it acknowledges what it receives. properties: of MQTT 5's CONNECT.

    Raises Refused when the broker does not accept it.
    """

    def __init__(
        self,
        broker: Broker,
        version: str,
        *,
        client_id: str = "",
        session_s: int = 0,
        will: Will | None = None,
        acks: bool = True,
        **properties: Any,
    ) -> None:
        self.version = version
        self.messages: list[paho.MQTTMessage] = []
        self.accepted: dict[str, Any] = {}
        self.session_present = False
        self._answers: list[ReasonCode] = []
        self._granted: dict[int, int] = {}
        self._client = client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id or f"outside-{uuid.uuid4().hex[:12]}",
            protocol=_PROTOCOLS[version],
            clean_session=None if version == "5" else not session_s,
            manual_ack=not acks,
            reconnect_on_failure=False,
        )
        client.username_pw_set(broker.username or None, broker.password or None)
        client.on_connect = self._connected
        client.on_disconnect = lambda client, userdata, flags, reason, properties: self._answers.append(reason)
        client.on_subscribe = lambda client, userdata, mid, codes, properties: self._granted.update(
            {mid: codes[0].value}
        )
        client.on_message = lambda client, userdata, message: self.messages.append(message)
        options: dict[str, Any] = {}
        if version == "5":
            if session_s:
                properties["SessionExpiryInterval"] = session_s
            options = {"clean_start": not session_s, "properties": _properties(PacketTypes.CONNECT, properties)}
        if will is not None:
            delay = {"WillDelayInterval": will.delay_s} if will.delay_s else {}
            told = _properties(PacketTypes.WILLMESSAGE, delay) if version == "5" else None
            client.will_set(will.topic, will.payload, 1, will.retain, told)
        client.connect("127.0.0.1", broker.port, **options)
        client.loop_start()
        eventually(lambda: self._answers)
        if self._answers[0].is_failure:
            client.loop_stop()
            raise Refused(self._answers[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    @property
    def closed(self) -> bool:
        return len(self._answers) > 1

    def vanish(self) -> None:
        """Break the connection without a goodbye."""
        self._client.socket().shutdown(socket.SHUT_RDWR)

    def subscribe(self, *topics: str, qos: int = 1, as_published: bool = False) -> int:
        """The granted QoS of the last. as_published: messages keep their retain flag (MQTT 5)."""
        for topic in topics:
            if self.version == "5":
                _, mid = self._client.subscribe(topic, options=SubscribeOptions(qos, retainAsPublished=as_published))
            else:
                _, mid = self._client.subscribe(topic, qos)
            eventually(lambda mid=mid: mid in self._granted)
        return self._granted[mid]

    def publish(
        self, topic: str, payload: bytes | str = b"", *, qos: int = 1, retain: bool = False, **told: Any
    ) -> None:
        """Returns when the broker has acknowledged it. told: properties of MQTT 5."""
        properties = _properties(PacketTypes.PUBLISH, told) if told else None
        self._client.publish(topic, payload, qos, retain, properties).wait_for_publish(10)

    def acknowledge(self) -> None:
        """All that was received. For a client that does not do so by itself."""
        for message in list(self.messages):
            self._client.ack(message.mid, message.qos)

    def round_trip(self) -> None:
        """What the broker had sent before has been received when this returns."""
        self.subscribe(f"round-trip/{uuid.uuid4().hex}", qos=0)

    def on(self, topic: str) -> list[paho.MQTTMessage]:
        return [message for message in list(self.messages) if message.topic == topic]

    def payloads(self, topic: str) -> list[bytes]:
        return [message.payload for message in self.on(topic)]

    def hears(self, topic: str, timeout_s: float = 3.0) -> bool:
        """Whether something comes on `topic`, or has come."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.on(topic), timeout_s)
        return bool(self.on(topic))

    def _connected(self, client: object, userdata: object, flags: Any, reason: ReasonCode, properties: Any) -> None:
        self.session_present = flags.session_present
        self.accepted = properties.json() if properties is not None else {}
        self._answers.append(reason)


@dataclass(frozen=True)
class Will:
    topic: str
    payload: bytes
    retain: bool = False
    delay_s: int = 0


class Refused(Exception):
    """reason: the broker's, or paho's when the broker just closed the connection."""

    def __init__(self, reason: ReasonCode) -> None:
        super().__init__(str(reason))
        self.reason = reason


_PROTOCOLS = {"5": paho.MQTTv5, "3.1.1": paho.MQTTv311}


def _properties(packet: int, values: Mapping[str, Any]) -> Properties:
    made = Properties(packet)
    for name, value in values.items():
        setattr(made, name, value)
    return made


_EJABBERD = """
hosts: [localhost]
loglevel: warning
auth_method: [anonymous]
anonymous_protocol: login_anon
allow_multiple_connections: true
listen:
  - {{port: {port}, ip: "127.0.0.1", module: mod_mqtt, backlog: 128}}
modules:
  mod_mqtt: {{}}
"""

_RABBITMQ = """
listeners.tcp = none
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
mqtt.allow_anonymous = true
log.file.level = warning
"""


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, scratch: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Run `command` until it is left; from the start on it listens on `port`. What it says is told if it does not."""
    told = scratch / f"{Path(command[0]).name}.out"
    with told.open("wb") as out:
        process = subprocess.Popen(
            ending_with_us(command),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            cwd=scratch,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:

        def listens() -> bool:
            assert process.poll() is None, f"{command[0]} ended with {process.returncode}: {told.read_text()[-2000:]}"
            return _listens(port)

        eventually(listens, _START_TIMEOUT_S)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended, and left nobody behind
            os.killpg(process.pid, signal.SIGKILL)  # and the helpers that it started
        process.wait()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1.0):
        return True
    return False


def _debian_version(package: str) -> str:
    """Upstream's part of it."""
    found = _output("dpkg-query", "--show", "--showformat=${Version}", package)
    return re.split(r"[-+]", found.rpartition(":")[2])[0]


def _ejabberd_libraries() -> Path:
    """Where Debian has the directories of ejabberd and of what it uses, which differs by architecture."""
    (found,) = {place.parents[1] for place in Path("/usr/lib").glob("*/ejabberd-*/ebin")}
    return found


def _aedes_modules() -> Path:
    """Aedes and what it depends on, out of the cache if they are there. None of it runs scripts to install itself."""
    folder = CACHE / f"aedes-{_AEDES}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{folder.name}.", dir=CACHE) as scratch:
            (made := Path(scratch) / "made").mkdir()
            options = ["--ignore-scripts", "--no-audit", "--no-fund", f"--before={_AEDES_BEFORE}", f"--prefix={made}"]
            _output("npm", "install", *options, f"aedes@{_AEDES}")
            made.replace(folder)
    return folder / "node_modules"


def _output(*command: str) -> str:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr[-2000:]}"
    return done.stdout
