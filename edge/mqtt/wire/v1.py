"""Version 1 of the messages: the types that are published, read, and written down as JSON Schema.

Here is only what goes over the wire, and nothing that takes more than msgspec and cbor2: whoever receives can use this
module without MediaPipe, Rerun or numpy. A field that is absent does not exist; nothing is invented to fill it.
Numbers of landmarks have four decimals: 0.0001 of a picture's width is a tenth of a pixel, 0.1 mm of a body.
"""

from __future__ import annotations

import array
import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

import cbor2
import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

VERSION = 1
JSON = "application/json"
CBOR = "application/cbor"
JPEG = "image/jpeg"
TEXT = "text/plain"

# Fields' types. What has a unit has it in its name or its description.
Seq = Annotated[int, Meta(ge=0, description="number of the camera's capture, from 0; frame_idx in Rerun")]
Micros = Annotated[int, Meta(description="microseconds since the Unix epoch, UTC")]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
PersonId = Annotated[int, Meta(ge=1, description="counts from 1 within a frame; in the next one it may be another's")]
ImagePoint = Annotated[
    tuple[float, float, float, Fraction],
    Meta(
        description="x, y as fractions of the picture's width and height, 0..1 inside it; z depth relative to the hips, "
        "negative towards the camera, roughly on the scale of x; visibility 0..1"
    ),
]
WorldPoint = Annotated[
    tuple[float, float, float],
    Meta(description="metres from the middle of the hips: x right, y down, z away from the camera"),
]


class Message(Struct, frozen=True, kw_only=True):
    """What every JSON message begins with."""

    v: Annotated[Literal[1], Meta(description="version of the message's layout")] = 1


class DeviceState(StrEnum):
    """The text of P/state."""

    ONLINE = "online"
    STOPPED = "stopped"
    OFFLINE = "offline"


class CameraState(StrEnum):
    """The text of P/camera/<name>/status."""

    ONLINE = "online"
    STALLED = "stalled"
    RECONNECTING = "reconnecting"
    PAUSED = "paused"
    DISABLED = "disabled"


# --- info


class ModelInfo(Struct, frozen=True, kw_only=True):
    name: str
    sha256: str


class SkeletonInfo(Struct, frozen=True, kw_only=True):
    """A keypoint's number is its place in `keypoints`, and so in `image` and `world`; `connections` are such pairs."""

    name: str
    keypoints: list[str]
    connections: list[tuple[Count, Count]]


class CameraInfo(Struct, frozen=True, kw_only=True):
    source: Annotated[str, Meta(description="what kind it is: synthetic, file, rtsp, ...")]


class StreamInfo(Struct, frozen=True, kw_only=True):
    """hz: messages a second and camera at most; absent: one for every frame."""

    content_type: str
    hz: Annotated[float, Meta(gt=0)] | UnsetType = UNSET


class Info(Message, frozen=True, kw_only=True):
    """P/info, retained: what this device is and how it is set."""

    device: str
    session: Annotated[str, Meta(description="name of this run of the daemon; events and recordings carry it")]
    started_us: Micros
    versions: dict[str, str]
    board: str
    model: ModelInfo
    max_people: Annotated[int, Meta(ge=1)]
    segmentation: bool
    skeleton: SkeletonInfo
    cameras: dict[str, CameraInfo]
    landmarks: StreamInfo
    summary: StreamInfo
    commands: Annotated[list[str], Meta(description="the verbs that P/cmd/<verb> takes")]
    settings: Annotated[
        dict[str, bool | int | float | str], Meta(description="keys that were set while it runs, or kept from before")
    ]


# --- health


class Times(Struct, frozen=True, kw_only=True):
    """Percentiles over the last few hundred frames, in milliseconds."""

    p50_ms: float
    p95_ms: float
    p99_ms: float


class CameraHealth(Struct, frozen=True, kw_only=True):
    """Counts are since the start; fps is over the time since the last message."""

    status: CameraState
    fps: Annotated[float, Meta(ge=0, description="frames estimated a second")]
    captured: Count
    estimated: Count
    with_people: Count
    people: Annotated[int, Meta(ge=0, description="in the newest frame")]
    inference: Times | UnsetType = UNSET
    latency: Annotated[Times | UnsetType, Meta(description="from the frame's arrival to its observation")] = UNSET


class LinkState(StrEnum):
    OFF = "off"
    AWAY = "away"
    LIVE = "live"
    STUCK = "stuck"


class OutboxHealth(Struct, frozen=True, kw_only=True):
    """Events: those that the broker has not acknowledged yet, and those given up since the start."""

    waiting: Count
    lost: Count


class Health(Message, frozen=True, kw_only=True):
    """P/health, every ten seconds: how it is doing. What the machine can't tell is absent."""

    session: str
    t_us: Micros
    uptime_s: Annotated[float, Meta(ge=0, description="since the daemon's start")]
    cameras: dict[str, CameraHealth]
    drops: Annotated[
        dict[str, dict[str, Count]],
        Meta(description="place -> cause -> how many items were lost there since the start"),
    ]
    sent: Annotated[dict[str, Count], Meta(description="what was handed to receivers since the start")]
    outbox: OutboxHealth
    rerun: LinkState
    cpu_percent: Annotated[float, Meta(ge=0, description="of this process since the last message; 100 is one core")]
    memory_mb: Annotated[float, Meta(ge=0, description="resident memory of this process")]
    memory_available_mb: float | UnsetType = UNSET
    disk_free_mb: float | UnsetType = UNSET
    temperature_celsius: Annotated[float | UnsetType, Meta(description="of the hottest sensor")] = UNSET
    throttled: Annotated[bool | UnsetType, Meta(description="whether heat or a weak supply slows the board now")] = (
        UNSET
    )
    clock_synchronised: bool | UnsetType = UNSET


# --- a frame


class PersonLandmarks(Struct, frozen=True, kw_only=True):
    id: PersonId
    score: Annotated[Fraction, Meta(description="mean visibility of the keypoints")]
    image: list[ImagePoint]
    world: list[WorldPoint] | UnsetType = UNSET


class Landmarks(Message, frozen=True, kw_only=True):
    """P/camera/<name>/landmarks: one frame, also one without people. As JSON or, with the same fields, as CBOR."""

    seq: Seq
    t_us: Annotated[Micros, Meta(description="when the frame was captured, microseconds since the Unix epoch")]
    people: list[PersonLandmarks]


class PersonSummary(Struct, frozen=True, kw_only=True):
    id: PersonId
    score: Fraction
    box: Annotated[
        tuple[Fraction, Fraction, Fraction, Fraction],
        Meta(description="left, top, right, bottom as fractions of the picture"),
    ]
    centre: tuple[Fraction, Fraction]
    angles: Annotated[
        dict[str, Annotated[float, Meta(ge=0, le=180)]] | UnsetType,
        Meta(description="joint -> degrees, 180 straight; joints that aren't seen are absent"),
    ] = UNSET


class Summary(Message, frozen=True, kw_only=True):
    """P/camera/<name>/summary: what most want to know of a frame, a few times a second."""

    seq: Seq
    t_us: Annotated[Micros, Meta(description="when the frame was captured, microseconds since the Unix epoch")]
    count: Count
    people: list[PersonSummary]


# --- events


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """id: `<session>-<n>`, n counting from 1: a repeat is known by it."""

    v: Literal[1] = 1
    id: str
    t_us: Micros
    camera: str


class CameraLost(_Event, frozen=True, kw_only=True, tag="camera_lost"):
    """It gives no frames any more; the daemon goes on trying."""

    reason: str


class CameraBack(_Event, frozen=True, kw_only=True, tag="camera_back"):
    away_s: Annotated[float, Meta(ge=0)]


class CameraEnded(_Event, frozen=True, kw_only=True, tag="camera_ended"):
    """Its file is over, or it can't be used as configured: no frames will come."""

    reason: str


Event = CameraLost | CameraBack | CameraEnded
"""P/camera/<name>/event."""


# --- commands


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every command may carry; an empty payload is an object without fields.

    id: comes back in the reply, for those without MQTT 5's correlation data.
    """

    id: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


CameraName = Annotated[str, Meta(pattern="^[A-Za-z0-9_-]{1,64}$")]
Keep = Annotated[bool, Meta(description="also after a restart")]


class Ping(Request, frozen=True, kw_only=True):
    """Answered by the thread that carries out everything else."""


class Snapshot(Request, frozen=True, kw_only=True):
    """A JPEG of the newest frame, on P/camera/<name>/snapshot. camera: needed where there are several."""

    camera: CameraName | UnsetType = UNSET


class Pause(Request, frozen=True, kw_only=True):
    """Let go of a camera, or of all without `camera`."""

    camera: CameraName | UnsetType = UNSET
    keep: Keep = False


class Resume(Request, frozen=True, kw_only=True):
    """Take a camera up again, or all."""

    camera: CameraName | UnsetType = UNSET
    keep: Keep = False


class Set(Request, frozen=True, kw_only=True):
    """Change keys of the configuration, all or none. null: back to what stands in the configuration."""

    values: Annotated[dict[str, bool | int | float | str | None], Meta(min_length=1, max_length=32)]
    keep: Keep = False


class Record(Request, frozen=True, kw_only=True):
    """Begin or end recording into rerun.record_dir."""

    on: bool
    keep: Keep = False


class Reload(Request, frozen=True, kw_only=True):
    """Read the configuration again and change over to it."""


class Restart(Request, frozen=True, kw_only=True):
    """End in order, for the service manager to start it again."""


REQUESTS: Mapping[str, type[Request]] = {
    "ping": Ping,
    "snapshot": Snapshot,
    "pause": Pause,
    "resume": Resume,
    "set": Set,
    "record": Record,
    "reload": Reload,
    "restart": Restart,
}
"""P/cmd/<verb>: what its payload is."""


class ErrorCode(StrEnum):
    """Why a command was not carried out."""

    UNKNOWN_VERB = "unknown_verb"
    MALFORMED = "malformed"  # no JSON, or not this verb's fields
    OVERSIZED = "oversized"
    TOO_FREQUENT = "too_frequent"
    RETAINED = "retained"  # a command is for now, not for whoever comes later
    BUSY = "busy"  # too many wait already
    INVALID = "invalid"  # a value that can't be, a camera that there is not
    FAILED = "failed"  # it was tried and taken back


class CommandError(Struct, frozen=True, kw_only=True):
    """text: one line that says what is wrong and what would help."""

    code: ErrorCode
    text: str


class Reply(Message, frozen=True, kw_only=True):
    """P/reply/<verb>, or the response topic that the command named below P/reply/."""

    verb: Annotated[str, Meta(max_length=64, description="of the command; `unknown` where it is none")]
    ok: bool
    t_us: Micros
    id: str | UnsetType = UNSET
    error: CommandError | UnsetType = UNSET
    result: dict[str, Any] | UnsetType = UNSET


# --- to bytes and back

_encoder = msgspec.json.Encoder()

# RFC 8746: tag 40 is an array of several dimensions, row by row; tag 85 its elements as little-endian binary32.
_TAG_ARRAY = 40
_TAG_FLOAT32_LE = 85


def encode(message: Struct) -> bytes:
    """A message as compact JSON in UTF-8."""
    return _encoder.encode(message)


def encode_binary(
    seq: int, t_us: int, people: Sequence[tuple[int, float, bytes, bytes | None]], keypoints: int
) -> bytes:
    """`Landmarks` as CBOR (RFC 8949), in half the bytes of JSON and exactly as the estimator gave them.

    people: of each the id, score, image and, where there are, world landmarks; the last two as little-endian float32,
    row by row, of `keypoints` rows with 4 and 3 columns.
    """
    table = [
        {"id": number, "score": score, "image": _table(keypoints, 4, image)}
        | ({} if world is None else {"world": _table(keypoints, 3, world)})
        for number, score, image, world in people
    ]
    return cbor2.dumps({"v": VERSION, "seq": seq, "t_us": t_us, "people": table})


def decode_landmarks(payload: bytes) -> Landmarks:
    """A landmarks message, be it JSON or CBOR. Raises ValueError for what is neither, or not of version 1."""
    if payload[:1] == b"{":
        return msgspec.json.decode(payload, type=Landmarks)
    try:
        content = cbor2.loads(payload)
        for person in content["people"]:
            for table in person.keys() & {"image", "world"}:
                person[table] = _rows(person[table])
        return msgspec.convert(content, Landmarks)
    except (cbor2.CBORDecodeError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"no landmarks message: {error}") from None


def _table(rows: int, columns: int, values: bytes) -> cbor2.CBORTag:
    return cbor2.CBORTag(_TAG_ARRAY, [[rows, columns], cbor2.CBORTag(_TAG_FLOAT32_LE, values)])


def _rows(table: object) -> list[tuple[float, ...]]:
    """The rows of what `_table` wrote."""
    match table:
        case cbor2.CBORTag(tag=40, value=[[int(rows), int(columns)], cbor2.CBORTag(tag=85, value=bytes(values))]):
            numbers = array.array("f", values[: len(values) // 4 * 4])
            if sys.byteorder == "big":
                numbers.byteswap()
            if columns > 0 and rows * columns * 4 == len(values):
                return [tuple(numbers[start : start + columns]) for start in range(0, len(numbers), columns)]
    raise ValueError("image and world are arrays of float32, RFC 8746")
