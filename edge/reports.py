"""What the daemon says about itself: values, apart from how any protocol spells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge.config import SettingValue
from edge.privacy import Mode
from edge.stats import CameraCounts, DropCause
from edge.vision.events import Begin, End, PeopleEvent
from edge.vision.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What is known of the device and how it is set.

    cameras: name -> what kind of source. landmarks_hz, summary_hz: messages a second and camera at most, None for every
    frame. settings: the keys that were set while it runs or kept from before. keeps: whether they can be kept.
    """

    device: str
    session: str
    started_ns: int
    versions: Mapping[str, str]
    board: str
    model: str
    model_sha256: str
    max_people: int
    segmentation: bool
    privacy: Mode
    skeleton: Skeleton
    cameras: Mapping[str, str]
    landmarks_hz: float | None
    summary_hz: float | None
    settings: Mapping[str, SettingValue]
    keeps: bool
    clock_synchronised: bool | None = None
    """When the daemon started; None: the kernel doesn't tell."""


class LinkState(StrEnum):
    """How the link to a Rerun server is."""

    OFF = "off"  # there is none by configuration
    AWAY = "away"
    LIVE = "live"
    STUCK = "stuck"  # it is there and takes nothing


@dataclass(frozen=True, slots=True)
class BrokerReach:
    """How it stands with the broker.

    state: "off" when there is none by configuration, "online" when it says so of this device, else why it does not, one
    line. connection: how often it has accepted this client so far; another number is another connection.
    """

    state: str
    connection: int = 0


@dataclass(frozen=True, slots=True)
class ClockReport:
    """How the wall clock is. None: the kernel doesn't tell.

    synchronised: whether somebody keeps it. error_ms: how far off it may be at most, None where nobody keeps it. steps:
    how often it was set, since the start.
    """

    synchronised: bool | None
    error_ms: float | None
    steps: int


@dataclass(frozen=True, slots=True)
class MachineReport:
    """How the machine is. None: it doesn't tell.

    cpu_percent: of this process since the last report, 100 is one core. memory_mb: resident memory of this process.
    """

    cpu_percent: float
    memory_mb: float
    memory_available_mb: float | None
    disk_free_mb: float | None
    temperature_celsius: float | None
    throttled: bool | None
    clock: ClockReport


@dataclass(frozen=True, slots=True)
class HealthReport:
    """How everything is doing. Counts are since the start; fps: frames estimated a second since the last report."""

    session: str
    at_ns: int
    uptime_s: float
    cameras: Mapping[str, CameraCounts]
    fps: Mapping[str, float]
    drops: Mapping[tuple[str, DropCause], int]
    sent: Mapping[str, int]
    rerun: LinkState
    machine: MachineReport


@dataclass(frozen=True, slots=True)
class CameraLost:
    """It gives no frames any more; the daemon goes on trying. CameraBack, CameraEnded or Interrupted ends it."""

    reason: str


@dataclass(frozen=True, slots=True)
class CameraBack:
    """It gives frames again, after away_s without any. of: the id of the loss that this ends."""

    away_s: float
    of: str


@dataclass(frozen=True, slots=True)
class CameraEnded:
    """No frames will come. of: the id of the loss that this ends, if it was lost."""

    reason: str
    of: str = ""


@dataclass(frozen=True, slots=True)
class Interrupted:
    """What began with the event `of` is watched no longer, so that its end will not be told."""

    of: str
    reason: str


@dataclass(frozen=True, slots=True)
class EventsLost:
    """So many events of a camera were given up before the broker had them; they happened between these times."""

    count: int
    since_ns: int
    until_ns: int


Happening = CameraLost | CameraBack | CameraEnded | Interrupted | EventsLost | PeopleEvent


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. event_id: `<session>-<n>`, n from 1. at_ns: since the Unix epoch; what happened with
    people did so when the frame was captured that made it certain."""

    event_id: str
    camera: str
    at_ns: int
    what: Happening

    @property
    def begins(self) -> bool:
        """Whether another event is to say how it ended."""
        return isinstance(self.what, CameraLost | Begin)

    @property
    def ends(self) -> str:
        """The id of the event that began what this one ends, or nothing."""
        return self.what.of if isinstance(self.what, CameraBack | CameraEnded | Interrupted | End) else ""
