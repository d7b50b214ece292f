"""How the daemon is right now, in a file for whoever looks after this machine: site.yml waits for it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from edge.device.systemd import runtime_directory
from edge.reports import BrokerReach

STATUS_FILE = "status.json"
"""In $RUNTIME_DIRECTORY: a Status as JSON, there for as long as the daemon runs."""


@dataclass(frozen=True, slots=True)
class Status:
    """session: of this run. ready: it is up, and no reload is under way. summary: device and cameras, or "not
    reloaded: " and why, one line. broker: how it stands with it."""

    session: str
    ready: bool
    summary: str
    broker: BrokerReach


class StatusFile:
    """Rewritten as a whole whenever it says something else, so that readers never see half of it.

    environment: usually os.environ. Without RUNTIME_DIRECTORY in it nothing is written.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        directory = runtime_directory(environment)
        self._path = None if directory is None else directory / STATUS_FILE
        self._told: Status | None = None
        self.remove()  # what a predecessor left that was killed

    def tell(self, status: Status) -> None:
        if self._path is None or status == self._told:
            return
        arriving = self._path.with_suffix(".new")
        # As with the sign of life: where nobody made the directory, nobody looks.
        with contextlib.suppress(OSError):
            arriving.write_text(json.dumps(asdict(status), ensure_ascii=False))
            arriving.replace(self._path)
            self._told = status

    def remove(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()
