"""A device: a host that site.yml has been run for, with a clip for a camera, and a broker that somebody listens at."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import CLIP
from tests.mqtt.test_sink import Subscriber, subscriber
from tests.servers import mosquitto
from tests.system.nspawn import CACHE, Host, nspawn_host
from tests.system.site import Controller, Play

NAME = "hall-pi"
STATE = f"pose/v1/{NAME}/state"
LANDMARKS = f"pose/v1/{NAME}/camera/front/landmarks"

SUITE = os.environ.get("EDGE_POSE_TEST_SUITE", "trixie")
"""The host's release of Debian; bookworm has Python 3.11 and systemd 252."""

_PORT = 1883


@dataclass(frozen=True)
class Device:
    """outside: somebody at the broker. first: how the first run of site.yml ended, in `first_s` seconds."""

    host: Host
    controller: Controller
    outside: Subscriber
    first: Play | None = None
    first_s: float = 0.0

    def site(self, *arguments: str, config: str = "", **variables: object) -> Play:
        """Run site.yml. config: the configuration; default: `config()`."""
        return self.controller.play("site", *arguments, config=config or self.config(), **variables)

    def config(self, *, broker: str = "", mqtt: str = "") -> str:
        """A configuration. broker: another one's address. mqtt: more lines of that table."""
        url = broker or f"mqtt://{self.host.outside}:{_PORT}"
        camera = '[camera.front]\nsource = "/srv/clip.mp4"\nloop = true\n'
        return f'device = "{NAME}"\n{camera}[mqtt]\nurl = "{url}"\n{mqtt}'

    def states(self) -> list[bytes]:
        return self.outside.payloads(STATE)

    def landmarks(self) -> list[bytes]:
        return self.outside.payloads(LANDMARKS)

    def landmarks_hz(self, seconds: float = 4.0) -> float:
        """How often they come, measured for so long."""
        before = len(self.landmarks())
        time.sleep(seconds)
        return (len(self.landmarks()) - before) / seconds

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self.host.run(f"systemctl show edge-pose.service --property={name} --value").stdout.strip()

    def journal(self) -> str:
        """All that the unit said since the boot."""
        return self.host.run("journalctl --unit=edge-pose.service --boot --output=cat").stdout


@contextlib.contextmanager
def provisioned(scratch: Path) -> Iterator[Device]:
    """A new device. scratch: a directory for the controller's files."""
    with nspawn_host(name=NAME, suite=SUITE) as host:
        shutil.copy(CLIP, host.root / "srv/clip.mp4")
        with mosquitto(settings=f"listener {_PORT} {host.outside}") as broker, subscriber(broker.port) as outside:
            device = Device(host, Controller(host, scratch, CACHE), outside)
            began_s = time.monotonic()
            first = device.site()
            assert not first.failed, first.output
            yield dataclasses.replace(device, first=first, first_s=time.monotonic() - began_s)
