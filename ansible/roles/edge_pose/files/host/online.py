"""Wait until the broker says that this device is online, and stays so for a moment.

usage: online.py TIMEOUT_S   run by the Python of a release, as the service's user and with its credentials

Exit codes: 0 it is, or the configuration names no broker; 1 it is not, with one line that says what the broker says.
"""

from __future__ import annotations

import os
import sys
import time

from edge.config import Config, without_credentials
from edge.config_layers import SYSTEM_FILE, load
from edge.mqtt.message import Received
from edge.mqtt.session import WILL_DELAY_S, Session
from edge.mqtt.tls import Credentials
from edge.mqtt.topics import Topics

# The broker says nothing of a client that has vanished before that.
_STABLE_S = WILL_DELAY_S + 3.0


class Watch:
    """What the broker says about the device, since when, and why nothing if it says nothing."""

    def __init__(self, config: Config) -> None:
        self.topic = Topics(config.mqtt.prefix, config.device).state
        self._state = ""
        self._since_s = 0.0
        self._session = Session(
            config.mqtt.url,
            client_id=f"edge-pose-{config.device}-gate-{os.getpid()}",
            version=config.mqtt.version,
            credentials=Credentials.of(config.mqtt),
            on_online=lambda: self._session.subscribe(self.topic, qos=1),
            on_message=self._heard,
            session_expiry_s=0,
        )

    @property
    def found(self) -> str:
        return self._state or self._session.trouble or "no state published"

    def until(self, end_s: float) -> bool:
        """Whether it is online, and has been for a moment, before the clock shows `end_s`."""
        while time.monotonic() < end_s:
            self._session.service()
            if not self._session.online:
                self._since_s = time.monotonic()
            elif self._state == "online" and time.monotonic() - self._since_s > _STABLE_S:
                self._session.close(None, 1.0)
                return True
            time.sleep(0.05)
        return False

    def _heard(self, received: Received) -> None:
        self._state = received.payload.decode(errors="replace")
        self._since_s = time.monotonic()


def main() -> int:
    config = load(SYSTEM_FILE, environment=os.environ, sets=[]).config
    timeout_s = float(sys.argv[1])
    if not config.mqtt.url:
        time.sleep(_STABLE_S)
        return 0
    watch = Watch(config)
    if watch.until(time.monotonic() + timeout_s):
        return 0
    brokers = ", ".join(map(without_credentials, config.mqtt.url))
    print(f"{watch.topic} at {brokers} is not online after {timeout_s:g} s but: {watch.found}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
