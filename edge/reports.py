"""What the daemon says about itself: values, apart from how any protocol spells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from edge.config import SettingValue
from edge.stats import CameraCounts, DropCause
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
    skeleton: Skeleton
    cameras: Mapping[str, str]
    landmarks_hz: float | None
    summary_hz: float | None
    settings: Mapping[str, SettingValue]
    keeps: bool


class LinkState(StrEnum):
    """How the link to a Rerun server is."""

    OFF = "off"  # there is none by configuration
    AWAY = "away"
    LIVE = "live"
    STUCK = "stuck"  # it is there and takes nothing


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
    clock_synchronised: bool | None


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


class EventKind(StrEnum):
    """What can happen to a camera."""

    CAMERA_LOST = "camera_lost"
    CAMERA_BACK = "camera_back"
    CAMERA_ENDED = "camera_ended"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    event_id: `<session>-<n>`, n from 1. reason: of a loss or an end. away_s: of a return.
    """

    event_id: str
    kind: EventKind
    camera: str
    at_ns: int
    reason: str = ""
    away_s: float = 0.0
