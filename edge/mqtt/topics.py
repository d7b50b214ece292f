"""The topics of one device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topics:
    """Everything lives below `<prefix>/<device>`."""

    prefix: str
    device: str

    @property
    def state(self) -> str:
        """online, stopped (ended on purpose) or offline (the last will)."""
        return f"{self.prefix}/{self.device}/state"

    @property
    def info(self) -> str:
        return f"{self.prefix}/{self.device}/info"

    def landmarks(self, camera: str) -> str:
        return f"{self.prefix}/{self.device}/camera/{camera}/landmarks"

    def summary(self, camera: str) -> str:
        return f"{self.prefix}/{self.device}/camera/{camera}/summary"

    @property
    def health(self) -> str:
        return f"{self.prefix}/{self.device}/health"

    def status(self, camera: str) -> str:
        """online, stalled, reconnecting, paused or disabled."""
        return f"{self.prefix}/{self.device}/camera/{camera}/status"

    def camera_of_status(self, topic: str) -> str | None:
        """The camera whose status is on `topic`; None when it is another topic."""
        camera = topic.removeprefix(self.status("").removesuffix("/status")).removesuffix("/status")
        return camera if topic == self.status(camera) and "/" not in camera else None

    def event(self, camera: str) -> str:
        return f"{self.prefix}/{self.device}/camera/{camera}/event"

    def snapshot(self, camera: str) -> str:
        return f"{self.prefix}/{self.device}/camera/{camera}/snapshot"

    @property
    def commands(self) -> str:
        """A filter for all verbs."""
        return f"{self.prefix}/{self.device}/cmd/+"

    def command(self, verb: str) -> str:
        return f"{self.prefix}/{self.device}/cmd/{verb}"

    def reply(self, verb: str) -> str:
        """Where a command is answered that names no response topic."""
        return f"{self.prefix}/{self.device}/reply/{verb}"

    @property
    def discovery(self) -> str:
        """Where Home Assistant looks for devices: its default prefix."""
        return f"homeassistant/device/{self.device}/config"
