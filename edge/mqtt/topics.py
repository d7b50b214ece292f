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
