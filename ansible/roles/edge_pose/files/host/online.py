"""Wait until the broker says that this device is online, and stays so for a moment.

usage: online.py TIMEOUT_S   run by the Python of a release, as the service's user and with its credentials

Exit codes: 0 it is, or the configuration names no broker; 1 it is not, with one line that says what the broker says.
"""

from __future__ import annotations

import os
import ssl
import sys
import time
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import Config
from edge.config_layers import SYSTEM_FILE, load
from edge.preflight import password

_STABLE_S = 3.0


class Watch:
    """What the broker says about the device, since when, and why nothing if it says nothing."""

    def __init__(self, config: Config) -> None:
        mqtt = config.mqtt
        parts = urlsplit(mqtt.url)
        self.topic = f"{mqtt.prefix}/{config.device}/state"
        self.state = "no state published"
        self.since_s = 0.0
        # Version 3.1.1 is what every broker speaks.
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"{config.device}-gate-{os.getpid()}")
        if mqtt.username:
            self._client.username_pw_set(mqtt.username, password(mqtt.password_file) if mqtt.password_file else None)
        if parts.scheme == "mqtts":
            self._client.tls_set_context(ssl.create_default_context(cafile=mqtt.ca_file and str(mqtt.ca_file)))
        self._client.on_connect = self._connected
        self._client.on_message = self._heard
        self._address = (parts.hostname or "", parts.port or (8883 if parts.scheme == "mqtts" else 1883))

    def until(self, end_s: float) -> bool:
        """Whether it is online, and has been for a moment, before the clock shows `end_s`."""
        while time.monotonic() < end_s:
            try:
                self._client.connect(*self._address, keepalive=20)
                while self._client.loop(0.2) == paho.MQTT_ERR_SUCCESS and time.monotonic() < end_s:
                    if self.state == "online" and time.monotonic() - self.since_s > _STABLE_S:
                        return True
            except OSError as error:
                self.state = f"no connection: {error}"
            time.sleep(0.5)
        return False

    def _connected(
        self, client: paho.Client, userdata: object, flags: object, reason: object, properties: object
    ) -> None:
        if str(reason) == "Success":
            client.subscribe(self.topic, qos=1)
        else:
            self.state = f"the broker refuses: {reason}"

    def _heard(self, client: paho.Client, userdata: object, message: paho.MQTTMessage) -> None:
        self.state = message.payload.decode(errors="replace")
        self.since_s = time.monotonic()


def main() -> int:
    config = load(SYSTEM_FILE, environment=os.environ, sets=[]).config
    timeout_s = float(sys.argv[1])
    if not config.mqtt.url:
        time.sleep(_STABLE_S)
        return 0
    watch = Watch(config)
    if watch.until(time.monotonic() + timeout_s):
        return 0
    print(f"{watch.topic} at {config.mqtt.url} is not online after {timeout_s:g} s but: {watch.state}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
