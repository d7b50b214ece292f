"""What a broker's messages say of all devices and their cameras, as rows of a table.

Pure: no I/O and no clock; `now_s` is always an argument, seconds since the Unix epoch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct, UnsetType

from edge.config import NAME
from edge.mqtt.wire import v1

# Whoever may publish could name any number of them. Far beyond what a broker of cameras serves.
MOST_DEVICES = 2_000
MOST_CAMERAS = 64  # a device

_Place = tuple[str, str, str]
"""Device, camera or nothing, and the kind of message."""

_RETAINED = frozenset({"state", "info", "status"})

_T = TypeVar("_T")


class Skipped(StrEnum):
    """Why a message tells nothing."""

    FOREIGN = "foreign"  # not below the prefix, or of what can be no device or camera
    UNKNOWN = "unknown"  # a topic that no row is made from
    MALFORMED = "malformed"
    TOO_MANY = "too many"  # beyond MOST_DEVICES or MOST_CAMERAS


@dataclass(frozen=True, slots=True)
class Row:
    """A camera, or a device that has none. None and empty text: not known, or not so at present."""

    device: str
    camera: str
    state: str
    """The device's (online, stopped, offline) unless that is online, then the camera's status."""
    fps: float | None
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    people: int | None
    temperature_celsius: float | None
    event: str
    """The type of the last event heard, and how long ago it happened by the device's clock."""
    event_age_s: float | None
    link: str
    """Of the device to Rerun: off, away, live, stuck."""
    model: str
    session: str
    age_s: float | None
    """Since the device last said anything that nobody keeps: health, a summary, an event."""


class _AnyEvent(Struct, frozen=True):
    """Of an event what a row shows. Not v1.Event: devices newer than this program have further types."""

    type: str
    t_us: Annotated[int, Meta(ge=0, le=2**53)]
    v: Literal[1] = 1


@dataclass(slots=True)
class _Camera:
    status: v1.CameraState | None = None
    people: int | None = None
    event: _AnyEvent | None = None


@dataclass(slots=True)
class _Device:
    state: v1.DeviceState | None = None
    info: v1.Info | None = None
    health: v1.Health | None = None
    heard_s: float | None = None
    cameras: dict[str, _Camera] = field(default_factory=dict)

    @property
    def retained(self) -> bool:
        return bool(self.state or self.info or any(camera.status for camera in self.cameras.values()))

    @property
    def current_health(self) -> v1.Health | None:
        """The last message, unless it is of an earlier run."""
        if self.health is None or (self.info is not None and self.info.session != self.health.session):
            return None
        return self.health

    def names(self) -> list[str]:
        """The cameras it has: those it lists and those with a status. Where it lists none, whatever is heard of."""
        names = {name for name, camera in self.cameras.items() if camera.status}
        if self.info is not None:
            names |= self.info.cameras.keys()
        else:
            names |= self.cameras.keys() | (self.health.cameras.keys() if self.health else set())
        return sorted(name for name in names if NAME.fullmatch(name))[:MOST_CAMERAS]


class Fleet:
    """Takes messages one after the other; all devices as the latest of them tell."""

    def __init__(self, prefix: str) -> None:
        """prefix: the first levels of every topic, as in mqtt.prefix."""
        self._below = f"{prefix}/"
        self._devices: dict[str, _Device] = {}
        self._skipped: Counter[Skipped] = Counter()
        self._doubted: set[_Place] = set()

    @property
    def devices(self) -> int:
        return len(self._devices)

    @property
    def skipped(self) -> Mapping[Skipped, int]:
        """How many messages told nothing, by cause."""
        return dict(self._skipped)

    def take(self, topic: str, payload: bytes, now_s: float) -> None:
        """Take any message; never raises. An empty payload where messages are retained removes what was there."""
        why = self._take(topic, payload, now_s)
        if why is not None:
            self._skipped[why] += 1

    def _take(self, topic: str, payload: bytes, now_s: float) -> Skipped | None:
        """Why it was skipped, or None."""
        place = self._place(topic)
        if isinstance(place, Skipped):
            return place
        self._doubted.discard(place)
        name, camera, kind = place
        if not payload and kind in _RETAINED:
            self._remove(name, camera, kind)
            return None
        device = self._devices.get(name)
        if device is None:
            full, device = len(self._devices) >= MOST_DEVICES, _Device()
        else:
            full = camera not in {"", *device.cameras} and len(device.cameras) >= MOST_CAMERAS
        if full:
            return Skipped.TOO_MANY
        try:
            _note(device, camera, kind, payload)
        except (ValueError, RecursionError):  # what msgspec raises, text that is not UTF-8, nesting without end
            return Skipped.MALFORMED
        self._devices[name] = device
        if kind not in _RETAINED:  # those the broker may have kept from long ago, or say itself, as the last will
            device.heard_s = now_s
        return None

    def _place(self, topic: str) -> _Place | Skipped:
        if not topic.startswith(self._below):
            return Skipped.FOREIGN
        match topic.removeprefix(self._below).split("/"):
            case [device, ("state" | "info" | "health") as kind]:
                camera = ""
            case [device, "camera", camera, ("status" | "summary" | "event") as kind]:
                if not NAME.fullmatch(camera):
                    return Skipped.FOREIGN
            case _:
                return Skipped.UNKNOWN
        return (device, camera, kind) if NAME.fullmatch(device) else Skipped.FOREIGN

    def _remove(self, name: str, camera: str, kind: str) -> None:
        device = self._devices.get(name)
        if device is None:
            return
        if kind == "state":
            device.state = None
        elif kind == "info":
            device.info = None
        else:
            device.cameras.pop(camera, None)
        if not device.retained:
            del self._devices[name]

    def doubt(self) -> None:
        """The broker is back: whatever it still keeps comes again now, and what does not is gone."""
        for name, device in self._devices.items():
            self._doubted |= {(name, "", kind) for kind in ("state", "info")}
            self._doubted |= {(name, camera, "status") for camera, seen in device.cameras.items() if seen.status}

    def drop_doubted(self) -> None:
        """What did not come again since `doubt` is removed."""
        for place in self._doubted:
            self._remove(*place)
        self._doubted.clear()

    def rows(self, now_s: float) -> list[Row]:
        """One for each camera and for each device without cameras, sorted by both names."""
        return [row for name in sorted(self._devices) for row in _rows(name, self._devices[name], now_s)]


def _note(device: _Device, camera: str, kind: str, payload: bytes) -> None:
    """Raises ValueError or RecursionError, and has noted nothing then."""
    match kind:
        case "state":
            device.state = v1.DeviceState(payload.decode())
            if device.state is not v1.DeviceState.ONLINE:
                device.health = None
                for each in device.cameras.values():
                    each.people = None
        case "info":
            device.info = msgspec.json.decode(payload, type=v1.Info)
        case "health":
            device.health = msgspec.json.decode(payload, type=v1.Health)
        case "status":
            status = v1.CameraState(payload.decode())
            entry = device.cameras.setdefault(camera, _Camera())
            entry.status = status
            if status is not v1.CameraState.ONLINE:
                entry.people = None
        case "summary":
            people = msgspec.json.decode(payload, type=v1.Summary).count
            device.cameras.setdefault(camera, _Camera()).people = people
        case _:
            event = msgspec.json.decode(payload, type=_AnyEvent)
            device.cameras.setdefault(camera, _Camera()).event = event


def _rows(name: str, device: _Device, now_s: float) -> Iterator[Row]:
    health = device.current_health
    info = device.info
    up = device.state in (v1.DeviceState.ONLINE, None)
    for camera in device.names() or [""]:
        seen = device.cameras.get(camera, _Camera())
        figures = None if health is None else health.cameras.get(camera)
        status = seen.status or (figures.status if figures else None)
        if not up or status not in (v1.CameraState.ONLINE, None):
            figures = None
        latency = _known(figures.latency) if figures else None
        yield Row(
            device=name,
            camera=camera,
            state=(status if up else None) or device.state or "",
            fps=_known(figures.fps) if figures else None,
            latency_p50_ms=latency.p50_ms if latency else None,
            latency_p99_ms=latency.p99_ms if latency else None,
            people=_known(figures.people) if figures and seen.people is None else seen.people,
            temperature_celsius=_known(health.temperature_celsius) if health else None,
            event=seen.event.type if seen.event else "",
            event_age_s=max(0.0, now_s - seen.event.t_us / 1e6) if seen.event else None,
            link=health.rerun if health else "",
            model=info.model.name if info else "",
            session=info.session if info else health.session if health else "",
            age_s=None if device.heard_s is None else max(0.0, now_s - device.heard_s),
        )


def _known(value: _T | UnsetType) -> _T | None:
    return None if isinstance(value, UnsetType) else value
