"""The broker as an operator's command finds it: by the configuration of this machine, or by an address given."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge import preflight
from edge.config_layers import find_file, load
from edge.errors import ConfigError
from edge.mqtt.message import Received
from edge.mqtt.session import Session, Version
from edge.mqtt.tls import Credentials
from edge.mqtt.wire import v1

# Pictures are the largest that anybody asks for.
MOST_PICTURE_BYTES = 16 * 2**20


@dataclass(frozen=True, slots=True)
class BrokerAccess:
    """Where brokers are, what they are shown, and below which topic the devices are. urls: tried in order."""

    urls: Sequence[str]
    version: Version
    credentials: Credentials
    prefix: str

    def session(
        self,
        command: str,
        *,
        on_online: Callable[[], None],
        on_message: Callable[[Received], None],
        most_bytes: int = v1.MOST_PACKET_BYTES,
    ) -> Session:
        """A client that leaves nothing behind at the broker. command: part of its name there."""
        return Session(
            self.urls,
            client_id=f"edge-pose.{command}-{secrets.token_hex(4)}",
            version=self.version,
            credentials=self.credentials,
            on_online=on_online,
            on_message=on_message,
            session_expiry_s=0,
            max_packet_bytes=most_bytes,
        )


def broker_access(file: Path | None, sets: Sequence[str] | None, url: str | None) -> BrokerAccess:
    """What the [mqtt] table in force says, with `url` in the place of mqtt.url when it is given.

    Only that table is looked at: the cameras are another machine's business. Raises ConfigError.
    """
    anything = {"camera": {"any": {"source": "synthetic"}}}
    settings = [*(sets or []), *([] if url is None else [f"mqtt.url={url}"])]
    loaded = load(find_file(file), environment=os.environ, sets=settings, base=anything)
    if flaws := [problem for problem in preflight.problems(loaded) if problem.key.startswith("mqtt.")]:
        raise ConfigError(flaws)
    mqtt = loaded.config.mqtt
    if not mqtt.url:
        expected = "no broker to go to: give its address, e.g. mqtts://hub.local:8883, or set mqtt.url"
        raise ConfigError([loaded.problem("mqtt.url", "", expected)])
    return BrokerAccess(mqtt.url, mqtt.version, Credentials.of(mqtt), mqtt.prefix)


def describe(session: Session) -> str:
    """Where it is connected to, or why it is not, in a few words."""
    if session.online:
        return f"connected to {session.address}, MQTT {session.protocol}"
    if session.trouble:
        return f"no connection to a broker ({session.trouble}); trying {session.address}"
    return f"connecting to {session.address}"
