"""Version 1 of the messages: the types that are published, read, and written down as JSON Schema.

Here is only what goes over the wire, and nothing that takes more than msgspec and cbor2: whoever receives can use this
module without MediaPipe, Rerun or numpy. A field that is absent does not exist; nothing is invented to fill it.
Numbers of landmarks have four decimals: 0.0001 of a picture's width is a tenth of a pixel, 0.1 mm of a body.
"""

from __future__ import annotations

import array
import math
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

STREAM_EXPIRY_S = 5
"""A frame's message, or health, that found no reader for so long is of no use to anybody."""
ANSWER_EXPIRY_S = 60
"""Whoever asked has given up by then."""
MOST_COMMAND_BYTES = 8192
"""A longer command is refused."""
MOST_PACKET_BYTES = 256 * 1024
"""What a device takes from the broker in one packet: a longer one is not even delivered (MQTT 5)."""
UNKNOWN_VERB = "unknown"
"""Stands in the reply's topic for a verb that there is not."""

# Fields' types. What has a unit has it in its name or its description.
Version = Annotated[Literal[1], Meta(description="version of the message's layout")]
Reason = Annotated[str, Meta(description="one line for people")]
Seq = Annotated[int, Meta(ge=0, description="number of the camera's capture, from 0; frame_idx in Rerun")]
Micros = Annotated[int, Meta(description="microseconds since the Unix epoch, UTC")]
CaptureMicros = Annotated[int, Meta(description="when the frame was captured, microseconds since the Unix epoch, UTC")]
Session = Annotated[str, Meta(description="name of this run of the daemon; events and recordings carry it")]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=0)]
PersonId = Annotated[
    int,
    Meta(
        ge=1,
        description="who it is before this camera: from 1, the same for the same person as far as can be told, and not "
        "given again in this session",
    ),
]
Degrees = Annotated[float, Meta(ge=0, le=180)]
Speed = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Range = Annotated[
    tuple[float, float, float], Meta(description="mean, least and most over those frames of the window that tell it")
]
Box = Annotated[
    tuple[Fraction, Fraction, Fraction, Fraction],
    Meta(description="left, top, right, bottom as fractions of the picture"),
]
Metres = Annotated[
    tuple[float, float, float],
    Meta(description="metres towards the person's left, up along the torso, and forward out of the chest"),
]
ImagePoint = Annotated[
    tuple[float, float, float, Fraction],
    Meta(
        description="x, y as fractions of the picture's width and height, 0..1 inside it; z depth relative to the "
        "hips, negative towards the camera, roughly on the scale of x; visibility 0..1"
    ),
]
WorldPoint = Annotated[
    tuple[float, float, float],
    Meta(description="metres from the middle of the hips: x right, y down, z away from the camera"),
]


class Message(Struct, frozen=True, kw_only=True):
    """What every JSON message begins with."""

    v: Version = 1


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
    """The pose model."""

    name: Annotated[str, Meta(description="lite, full, heavy, or a file's name")]
    sha256: Annotated[str, Meta(description="of its file, in hexadecimal")]


class SkeletonInfo(Struct, frozen=True, kw_only=True):
    """A keypoint's number is its place in `keypoints`, and so in `image` and `world`; `connections` are such pairs."""

    name: Annotated[str, Meta(description="the same name is the same keypoints")]
    keypoints: Annotated[list[str], Meta(description="their names")]
    connections: Annotated[list[tuple[Count, Count]], Meta(description="the pairs between which lines are drawn")]


class CameraInfo(Struct, frozen=True, kw_only=True):
    """A camera as it is configured."""

    source: Annotated[str, Meta(description="what kind it is: synthetic, file, rtsp, ...")]


class StreamInfo(Struct, frozen=True, kw_only=True):
    """How messages of one kind are sent."""

    content_type: Annotated[str, Meta(description="of their payloads")]
    hz: Annotated[
        Annotated[float, Meta(gt=0)] | UnsetType,
        Meta(description="messages a second and camera at most; absent: one for every frame"),
    ] = UNSET


class Info(Message, frozen=True, kw_only=True):
    """P/info, retained: what this device is and how it is set."""

    device: Annotated[str, Meta(description="its name, as in the topics")]
    session: Session
    started_us: Annotated[Micros, Meta(description="when this run began, microseconds since the Unix epoch, UTC")]
    versions: Annotated[dict[str, str], Meta(description="package -> its version")]
    board: Annotated[str, Meta(description="what the machine is, in its own words")]
    model: ModelInfo
    max_people: Annotated[int, Meta(ge=1, description="as many are found in a frame at most")]
    segmentation: Annotated[bool, Meta(description="whether there are masks of people, in Rerun")]
    privacy: Annotated[
        Literal["full", "mask", "landmarks"],
        Meta(description="what may leave the device: pictures too, silhouettes at most, or nothing to see"),
    ] = "full"
    skeleton: SkeletonInfo
    cameras: Annotated[dict[str, CameraInfo], Meta(description="by name")]
    landmarks: StreamInfo
    summary: StreamInfo
    commands: Annotated[list[str], Meta(description="the verbs that P/cmd/<verb> takes")]
    keeps: Annotated[bool, Meta(description="whether what is set can be kept: there is a state directory")] = False
    clock_synchronised: Annotated[
        bool | UnsetType, Meta(description="whether started_us can be trusted, and the session's own time")
    ] = UNSET
    settings: Annotated[
        dict[str, bool | int | float | str], Meta(description="keys that were set while it runs, or kept from before")
    ]


# --- health


class Times(Struct, frozen=True, kw_only=True):
    """Percentiles over the last few hundred frames, in milliseconds."""

    p50_ms: Annotated[float, Meta(ge=0, description="half of the frames took no longer")]
    p95_ms: Annotated[float, Meta(ge=0, description="19 of 20 took no longer")]
    p99_ms: Annotated[float, Meta(ge=0, description="99 of 100 took no longer")]


class CameraHealth(Struct, frozen=True, kw_only=True):
    """Counts are since the start. What speaks of now is absent while the camera is not online."""

    status: CameraState
    fps: Annotated[
        Annotated[float, Meta(ge=0)] | UnsetType,
        Meta(description="frames estimated a second since the last message; absent in the first"),
    ] = UNSET
    captured: Annotated[Count, Meta(description="frames that the camera gave")]
    estimated: Annotated[Count, Meta(description="frames in which people were looked for")]
    with_people: Annotated[Count, Meta(description="frames in which somebody was found")]
    people: Annotated[Count | UnsetType, Meta(description="in the newest frame")] = UNSET
    workers: Annotated[Count | UnsetType, Meta(description="estimators at work, each on a core of its own")] = UNSET
    inference: Annotated[Times | UnsetType, Meta(description="what an estimator takes for a frame")] = UNSET
    latency: Annotated[Times | UnsetType, Meta(description="from the frame's arrival to its observation")] = UNSET
    publish: Annotated[
        Times | UnsetType, Meta(description="from the frame's arrival to its landmarks' hand-over to the broker")
    ] = UNSET
    age: Annotated[
        Times | UnsetType,
        Meta(description="from when the light fell, as far as the camera tells, to that hand-over; not of files"),
    ] = UNSET


class LinkState(StrEnum):
    """How the link to a Rerun server is. off: none is configured. stuck: it is there and takes nothing."""

    OFF = "off"
    AWAY = "away"
    LIVE = "live"
    STUCK = "stuck"


class OutboxHealth(Struct, frozen=True, kw_only=True):
    """The events that are kept until the broker has them."""

    waiting: Annotated[Count, Meta(description="not acknowledged by the broker yet")]
    lost: Annotated[Count, Meta(description="given up since the start; events_lost tells of which camera")]
    durable: Annotated[
        bool | UnsetType, Meta(description="whether those that wait would survive a crash or a power cut now")
    ] = UNSET


class Health(Message, frozen=True, kw_only=True):
    """P/health, every ten seconds: how it is doing. What the machine can't tell is absent."""

    session: Session
    t_us: Micros
    uptime_s: Annotated[float, Meta(ge=0, description="since the daemon's start")]
    cameras: Annotated[dict[str, CameraHealth], Meta(description="by name")]
    drops: Annotated[
        dict[str, dict[str, Count]],
        Meta(description="place -> cause -> how many items were lost there since the start"),
    ]
    sent: Annotated[dict[str, Count], Meta(description="what was handed to receivers since the start")]
    outbox: OutboxHealth
    rerun: LinkState
    cpu_percent: Annotated[float, Meta(ge=0, description="of this process since the last message; 100 is one core")]
    memory_mb: Annotated[float, Meta(ge=0, description="resident memory of this process")]
    memory_available_mb: Annotated[
        float | UnsetType, Meta(description="of the machine's memory, or less where a container or service is limited")
    ] = UNSET
    disk_free_mb: Annotated[float | UnsetType, Meta(description="where recordings are kept")] = UNSET
    temperature_celsius: Annotated[float | UnsetType, Meta(description="of the hottest sensor")] = UNSET
    throttled: Annotated[bool | UnsetType, Meta(description="whether heat or a weak supply slows the board now")] = (
        UNSET
    )
    clock_synchronised: Annotated[bool | UnsetType, Meta(description="whether t_us can be trusted")] = UNSET
    clock_error_ms: Annotated[
        Annotated[float, Meta(ge=0)] | UnsetType,
        Meta(description="how far off t_us may be at most, where the clock is kept"),
    ] = UNSET
    clock_steps: Annotated[Count, Meta(description="how often somebody has set the clock since the start")] = 0


# --- a frame


class PersonLandmarks(Struct, frozen=True, kw_only=True):
    """One person, keypoint by keypoint."""

    id: PersonId
    score: Annotated[Fraction, Meta(description="mean visibility of the keypoints")]
    image: Annotated[list[ImagePoint], Meta(description="one row a keypoint: x, y, z, visibility")]
    world: Annotated[list[WorldPoint] | UnsetType, Meta(description="one row a keypoint: x, y, z in metres")] = UNSET


class Landmarks(Message, frozen=True, kw_only=True):
    """P/camera/<name>/landmarks: one frame, also one without people. As JSON or, with the same fields, as CBOR."""

    seq: Seq
    t_us: CaptureMicros
    people: Annotated[list[PersonLandmarks], Meta(description="everybody who was found; may be empty")]


class Posture(StrEnum):
    """How somebody holds themselves. unknown: it can't be told, as while the legs are not seen."""

    STANDING = "standing"
    SITTING = "sitting"
    CROUCHING = "crouching"
    LYING = "lying"
    UNKNOWN = "unknown"


class PersonSummary(Struct, frozen=True, kw_only=True):
    """One person over the window. What can't be told is absent. docs/people.md says how each is measured."""

    id: PersonId
    frames: Annotated[int, Meta(ge=1, description="in how many of the window's frames this person is seen")]
    age_s: Annotated[float, Meta(ge=0, description="for how long this person is there")]
    score: Annotated[Fraction, Meta(description="mean visibility of the keypoints")]
    box: Annotated[Box, Meta(description="where, in the last frame with this person")]
    centre: Annotated[tuple[Fraction, Fraction], Meta(description="x, y of that box's centre, as fractions")]
    posture: Annotated[Posture, Meta(description="in the last frame with this person")]
    posture_confidence: Annotated[Share, Meta(description="of that posture, 0 where it is unknown")]
    posture_s: Annotated[float, Meta(ge=0, description="for how long it is that")]
    postures: Annotated[dict[str, Share], Meta(description="posture -> share of the frames with this person")]
    angles: Annotated[
        dict[str, Degrees] | UnsetType,
        Meta(description="joint -> degrees, 180 straight, the mean; joints that aren't seen are absent"),
    ] = UNSET
    angle_ranges: Annotated[
        dict[str, tuple[Degrees, Degrees]] | UnsetType, Meta(description="joint -> the least and the most of it")
    ] = UNSET
    tilt_gravity: Annotated[
        Range | UnsetType,
        Meta(description="of the torso from upright, degrees, where the camera's mount is configured"),
    ] = UNSET
    tilt_image: Annotated[
        Range | UnsetType,
        Meta(description="where it is not: against the picture's vertical, as if the camera hung level"),
    ] = UNSET
    facing: Annotated[
        Annotated[float, Meta(ge=-180, le=180)] | UnsetType,
        Meta(description="where the chest points, degrees: 0 to the camera, 90 to the picture's right, 180 away"),
    ] = UNSET
    left_hand: Annotated[Metres | UnsetType, Meta(description="the wrist from between the ears, the mean")] = UNSET
    right_hand: Annotated[Metres | UnsetType, Meta(description="the wrist from between the ears, the mean")] = UNSET
    speed: Annotated[Range | UnsetType, Meta(description="across the picture, in lengths of this body a second")] = (
        UNSET
    )
    activity: Annotated[
        Range | UnsetType, Meta(description="of elbows, wrists, knees and ankles against the hips, m/s")
    ] = UNSET
    fallen: Annotated[bool, Meta(description="down after a fall that was suspected")] = False


class Summary(Message, frozen=True, kw_only=True):
    """P/camera/<name>/summary: what most want to know of the frames since the last one, a few times a second."""

    seq: Annotated[Seq, Meta(description="of the last frame")]
    t_us: CaptureMicros
    frames: Annotated[int, Meta(ge=1, description="that it sums up")]
    window_s: Annotated[float, Meta(ge=0, description="from the first of them to the last")]
    count: Annotated[Count, Meta(description="of people in the last frame")]
    most: Annotated[Count, Meta(description="of people at once in one frame")]
    away: Annotated[list[PersonId], Meta(description="not seen in the last frame, but not gone as far as is known")]
    people: Annotated[list[PersonSummary], Meta(description="everybody who was seen in one of the frames")]


# --- events


class _Event(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event begins with, after its `type`."""

    v: Version = 1
    id: Annotated[str, Meta(description="<session>-<n>, n counting from 1: a repeat is known by it")]
    t_us: Annotated[Micros, Meta(description="when it happened, microseconds since the Unix epoch, UTC")]
    camera: Annotated[str, Meta(description="the camera's name, as in the topic")]


SinceMicros = Annotated[Micros, Meta(description="when that began, microseconds since the Unix epoch, UTC")]
EndedId = Annotated[str, Meta(description="the id of the event whose end this is")]


class CameraLost(_Event, frozen=True, kw_only=True, tag="camera_lost"):
    """It gives no frames any more; the daemon goes on trying."""

    reason: Reason


class CameraBack(_Event, frozen=True, kw_only=True, tag="camera_back"):
    """It gives frames again."""

    away_s: Annotated[float, Meta(ge=0, description="for so long there were none")]
    of: EndedId | UnsetType = UNSET


class CameraEnded(_Event, frozen=True, kw_only=True, tag="camera_ended"):
    """Its file is over, or it can't be used as configured: no frames will come."""

    reason: Reason
    of: EndedId | UnsetType = UNSET


class Interrupted(_Event, frozen=True, kw_only=True, tag="interrupted"):
    """What another event began is watched no longer, as after a crash or a pause: how it ends will not be told."""

    reason: Reason
    of: EndedId


class EventsLost(_Event, frozen=True, kw_only=True, tag="events_lost"):
    """Events of this camera were given up, the oldest first: they found no room to wait in for the broker."""

    count: Annotated[int, Meta(ge=1, description="of events")]
    since_us: Annotated[Micros, Meta(description="when the first of them happened")]
    until_us: Annotated[Micros, Meta(description="when the last of them happened")]


class _PeopleEvent(_Event, frozen=True, kw_only=True):
    """`t_us` and `seq` are those of the frame that made it certain."""

    seq: Seq


class _PersonEvent(_PeopleEvent, frozen=True, kw_only=True):
    person: PersonId


class PersonEntered(_PersonEvent, frozen=True, kw_only=True, tag="person_entered"):
    """Somebody is there who was not."""

    since_us: SinceMicros
    box: Box  # where, in this frame


class PersonLeft(_PersonEvent, frozen=True, kw_only=True, tag="person_left"):
    """Somebody has not been seen for people.forget_after_s."""

    until_us: Annotated[Micros, Meta(description="of the last frame with this person")]
    stayed_s: Annotated[float, Meta(ge=0, description="from the first frame with this person to that")]
    of: EndedId | UnsetType = UNSET


class PostureChanged(_PersonEvent, frozen=True, kw_only=True, tag="posture_changed"):
    """Somebody stands, sits, crouches or lies who did not. That it can't be told for a while is no change."""

    since_us: SinceMicros
    before: Annotated[Posture, Meta(description="the last that could be told; unknown with a person's first posture")]
    posture: Posture
    before_s: Annotated[float, Meta(ge=0, description="how long it was that")]
    confidence: Annotated[Share, Meta(description="how much speaks for the new one")]


class HandsRaised(_PersonEvent, frozen=True, kw_only=True, tag="hands_raised"):
    """Somebody who is upright has a hand above the head."""

    since_us: SinceMicros
    hands: Annotated[Literal["left", "right", "both"], Meta(description="the person's own left and right")]


class HandsLowered(_PersonEvent, frozen=True, kw_only=True, tag="hands_lowered"):
    """And now has none there, or has left."""

    raised_s: Annotated[float, Meta(ge=0, description="for so long a hand was there")]
    of: EndedId | UnsetType = UNSET


class FallEvidence(Struct, frozen=True, kw_only=True):
    """What speaks for a fall: of the trunk's middle, down the picture, in this body's own lengths (bl)."""

    speed_bl_s: Annotated[float, Meta(description="the fastest it went down, over a quarter of a second")]
    drop_bl: Annotated[float, Meta(description="how far it went down")]
    tilt_before_deg: Annotated[float, Meta(description="how far the trunk leant from upright before, at least")]
    tilt_deg: Annotated[float, Meta(description="and how far since it is down, the mean")]
    took_s: Annotated[float, Meta(ge=0, description="from the last moment upright to the first down")]
    down_s: Annotated[float, Meta(ge=0, description="from that to this event")]
    confidence: Annotated[
        Share, Meta(description="how far speed and tilt are beyond what is asked for; no probability")
    ]


class FallSuspected(_PersonEvent, frozen=True, kw_only=True, tag="fall_suspected"):
    """Somebody upright went down fast and stays down: it looks like a fall, of which one camera can't be certain."""

    evidence: FallEvidence


class FallCleared(_PersonEvent, frozen=True, kw_only=True, tag="fall_cleared"):
    """Somebody who may have fallen is up again, or has left."""

    why: Annotated[Literal["up", "left"], Meta(description="the trunk is upright again, or nobody is seen any more")]
    down_s: Annotated[float, Meta(ge=0, description="so long after it was suspected")]
    of: EndedId | UnsetType = UNSET


ZoneName = Annotated[str, Meta(description="the zone's name in the configuration")]


class ZoneEntered(_PersonEvent, frozen=True, kw_only=True, tag="zone_entered"):
    """Somebody is in a zone who was not."""

    zone: ZoneName
    since_us: SinceMicros


class ZoneLeft(_PersonEvent, frozen=True, kw_only=True, tag="zone_left"):
    """And now is not, or has left altogether."""

    zone: ZoneName
    stayed_s: Annotated[float, Meta(ge=0, description="for so long the person was inside")]
    of: EndedId | UnsetType = UNSET


class LineCrossed(_PersonEvent, frozen=True, kw_only=True, tag="line_crossed"):
    """Somebody is on the other side of a line."""

    line: Annotated[str, Meta(description="the line's name in the configuration")]
    to: Annotated[
        Literal["left", "right"], Meta(description="the side that was reached, for who looks from its begin to its end")
    ]
    at: Annotated[tuple[float, float], Meta(description="x, y where it was crossed, as fractions of the picture")]


class CountChanged(_PeopleEvent, frozen=True, kw_only=True, tag="count_changed"):
    """There is another number of people, those included who are only hidden."""

    since_us: SinceMicros
    before: Annotated[Count, Meta(description="so many there were")]
    count: Annotated[Count, Meta(description="so many there are")]


Event = (
    CameraLost
    | CameraBack
    | CameraEnded
    | Interrupted
    | EventsLost
    | PersonEntered
    | PersonLeft
    | PostureChanged
    | HandsRaised
    | HandsLowered
    | FallSuspected
    | FallCleared
    | ZoneEntered
    | ZoneLeft
    | LineCrossed
    | CountChanged
)
"""P/camera/<name>/event."""


# --- commands


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every command may carry. One that has nothing to say is an object without fields."""

    id: Annotated[
        Annotated[str, Meta(max_length=64)] | UnsetType,
        Meta(description="comes back in the reply, for those without MQTT 5's correlation data"),
    ] = UNSET


# In Python `$` alone would let a line feed follow; in JSON Schema, which has JavaScript's, it would not.
CameraName = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}(?!\n)$", description="the camera's name in the configuration")
]
Keep = Annotated[bool, Meta(description="also after a restart")]


class Ping(Request, frozen=True, kw_only=True):
    """Show that it is there: the thread answers that carries out everything else."""


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

    values: Annotated[
        dict[str, bool | int | float | str | None],
        Meta(min_length=1, max_length=32, description="key, such as mqtt.landmarks_hz -> its value"),
    ]
    keep: Keep = False


class Record(Request, frozen=True, kw_only=True):
    """Begin or end recording into rerun.record_dir."""

    on: Annotated[bool, Meta(description="true: begin, false: end")]
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
    """What is wrong with a command."""

    code: ErrorCode
    text: Annotated[str, Meta(description="one line that says what is wrong and what would help")]


class Reply(Message, frozen=True, kw_only=True):
    """P/reply/<verb>, or the response topic that the command named below P/reply/."""

    verb: Annotated[str, Meta(max_length=64, description="of the command; `unknown` where it is none")]
    ok: Annotated[bool, Meta(description="whether it was carried out")]
    t_us: Micros
    id: Annotated[str | UnsetType, Meta(description="the command's, if it had one")] = UNSET
    error: Annotated[CommandError | UnsetType, Meta(description="if it was not carried out")] = UNSET
    result: Annotated[dict[str, Any] | UnsetType, Meta(description="what the verb gives, if it gives any")] = UNSET


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
    try:
        if payload[:1] == b"{":
            return msgspec.json.decode(payload, type=Landmarks)
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
            if columns > 0 and rows * columns * 4 == len(values) and all(map(math.isfinite, numbers)):
                return [tuple(numbers[start : start + columns]) for start in range(0, len(numbers), columns)]
    raise ValueError("image and world are arrays of finite float32, RFC 8746")
