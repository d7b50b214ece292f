"""What the service manager hears from the daemon: readiness, progress, reloads and the end.

The protocol is sd_notify(3): datagrams of VARIABLE=VALUE lines to the socket that $NOTIFY_SOCKET names. Where there is
none, nobody listens and nothing is said.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

log = logging.getLogger(__name__)

ALIVE_FILE = "alive"
"""In $RUNTIME_DIRECTORY: a file as old as the last sign of progress, for a container's health check."""


_BUSY_S = 2.0


def runtime_directory(environment: Mapping[str, str]) -> Path | None:
    """Where files belong that last as long as the service runs; None where nobody has made a place for them."""
    directories = environment.get("RUNTIME_DIRECTORY")
    return Path(directories.split(":")[0]) if directories else None


class ServiceManager:
    """The one that started this process: systemd, or Podman for a Quadlet.

    environment: usually os.environ, with NOTIFY_SOCKET and RUNTIME_DIRECTORY as systemd sets them.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is in the kernel's abstract namespace, and written there with a zero byte.
        self._address = "\0" + address[1:] if address.startswith("@") else address
        directory = runtime_directory(environment)
        self._alive = None if directory is None else directory / ALIVE_FILE
        self._shown = ""
        self._told_failure = False

    def ready(self, status: str) -> None:
        """The daemon is up, or a reload is over. status: one line for `systemctl status`."""
        self._shown = status
        self._send("READY=1", f"STATUS={status}")

    def show(self, status: str) -> None:
        """The line for `systemctl status` is another one by now."""
        if status != self._shown:
            self._shown = status
            self._send(f"STATUS={status}")

    def alive(self) -> None:
        """The daemon gets on. Without this sign for as long as WatchdogSec= says, it is restarted."""
        self._send("WATCHDOG=1")
        if self._alive is not None:
            # Nobody may be there to make the directory; then nobody looks at the file either.
            with contextlib.suppress(OSError):
                self._alive.touch()

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end begins."""
        self._send("STOPPING=1", "STATUS=stopping")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
                end.settimeout(_BUSY_S)
                end.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:  # to be killed by the watchdog is then all that can happen: say why
            if not self._told_failure:
                log.warning("NOTIFY_SOCKET = %s: can't be told: %s", os.fsdecode(self._address), error)
            self._told_failure = True
