"""A broker on this machine for as long as a demonstration lasts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from edge.cli.local_server import free_port, local_server, wait_until_listening, why_taken
from edge.errors import ConfigError, ConfigProblem

_START_TIMEOUT_S = 10.0


class BrokerKind(StrEnum):
    """auto: mosquitto where it is installed. builtin: amqtt, inside this process, which speaks MQTT 3.1.1 only."""

    AUTO = "auto"
    MOSQUITTO = "mosquitto"
    BUILTIN = "builtin"


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """Where it listens, what it is and which version of MQTT it speaks."""

    port: int
    kind: str
    version: Literal["auto", "3.1.1"]

    @property
    def url(self) -> str:
        return f"mqtt://127.0.0.1:{self.port}"


@contextlib.contextmanager
def local_broker(kind: BrokerKind, port: int | None = None) -> Iterator[LocalBroker]:
    """A broker on `port`, by default any free one, of the loopback interface.

    Raises ConfigError for mosquitto when it is not installed, and when the port is taken.
    """
    if port is None:
        port = free_port()
    elif why := why_taken(port):
        expected = f"{why}; see 'ss -ltnp sport = :{port}', or leave the option out"
        raise ConfigError([ConfigProblem("demo's options", "--port", str(port), expected)])
    # Debian puts servers where a user's PATH does not look.
    mosquitto = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if kind is BrokerKind.MOSQUITTO and mosquitto is None:
        expected = "it is not installed: apt install mosquitto, or --broker builtin"
        raise ConfigError([ConfigProblem("demo's options", "--broker", "mosquitto", expected)])
    if kind is BrokerKind.BUILTIN:
        mosquitto = None
    with _mosquitto(mosquitto, port) if mosquitto else _amqtt(port):
        yield LocalBroker(port, "mosquitto", "auto") if mosquitto else LocalBroker(port, "amqtt, built in", "3.1.1")


@contextlib.contextmanager
def _mosquitto(program: str, port: int) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="edge-pose-broker-") as scratch:
        config = Path(scratch) / "mosquitto.conf"
        config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest none\n")
        # `user root` has no effect unless root starts it; without it mosquitto would drop to a user that can't read
        # the scratch directory.
        with config.open("a") as more:
            more.write("user root\n")
        with local_server([program, "-c", str(config)], port, environment=os.environ):
            yield


@contextlib.contextmanager
def _amqtt(port: int) -> Iterator[None]:
    from amqtt.broker import Broker

    logging.getLogger("amqtt").setLevel(logging.CRITICAL)  # it takes every closed connection for an error

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="amqtt", daemon=True)
    thread.start()

    async def start() -> Broker:
        anyone = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
        listeners = {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}
        broker = Broker({"listeners": listeners, "plugins": anyone})
        await broker.start()
        return broker

    broker = asyncio.run_coroutine_threadsafe(start(), loop).result(_START_TIMEOUT_S)
    try:
        wait_until_listening(port)
        yield
    finally:
        with contextlib.suppress(Exception):  # it is thrown away; how its sessions feel about that does not matter
            asyncio.run_coroutine_threadsafe(broker.shutdown(), loop).result(2)
        loop.call_soon_threadsafe(loop.stop)
